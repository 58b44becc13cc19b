import Hypervisor
import Logging
import Sandbox

extension Configuration {
    /// The machine of `martlet bench files`: QEMU as configured, and a machine like a pod's with `martlet-bench-guest` as its first
    /// process.
    ///
    /// - Parameters:
    ///   - kernel: a path; nil: the kernel that `make guest-bench` has built.
    ///   - initramfs: a path; nil: the initramfs that `make guest-bench` has built.
    func benchMachine(
        kernel: String?, initramfs: String?, logger: Logger
    ) throws -> (driver: QEMUDriver, machine: VMConfiguration) {
        let image = try GuestImage.locateBench(kernel: kernel, initramfs: initramfs)
        let choice = try HostFacts.of(self)
            .chooseDriver("qemu", accelerator: qemu.accelerator.rawValue)
        guard let driver = choice.qemuDriver(logger: logger) else {
            throw SandboxError.invalid("the bench needs QEMU, not \(choice)")
        }
        return (
            driver,
            VMConfiguration(
                name: "bench", vcpus: vm.vcpus, memoryMiB: vm.memoryMiB, kernel: image.kernel,
                initramfs: image.initramfs, kernelArguments: choice.kernelArguments + vm.kernelArguments)
        )
    }
}
