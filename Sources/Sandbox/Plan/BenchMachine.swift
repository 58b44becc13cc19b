import Hypervisor
import Logging

extension Configuration {
    /// What `martlet bench` measures in: QEMU as configured, and a machine as a pod has it, but with another first
    /// process.
    ///
    /// - Parameters:
    ///   - kernel: a path; nil: what `make guest-bench` made.
    ///   - initramfs: likewise.
    package func benchMachine(
        kernel: String?, initramfs: String?, logger: Logger
    ) throws -> (driver: QEMUDriver, machine: VMConfiguration) {
        let image = try GuestImage.locateBench(kernel: kernel, initramfs: initramfs)
        let choice = try HostFacts.gather(self, askVersions: false)
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
