import ArgumentParser
import Hypervisor
import Logging
import Sandbox

/// The guest of a bench that measures devices.
struct BenchGuestOptions: ParsableArguments {
    @Option(help: "The guest's kernel.")
    var kernel: String?

    @Option(help: "The guest's initramfs, with martlet-bench-guest as /init.")
    var initramfs: String?
}

extension Configuration {
    /// The machine of `martlet bench files` and `disk`: QEMU as configured, and a machine like a pod's with `martlet-bench-guest` as its first
    /// process.
    ///
    /// - Parameter guest: paths; nil: what `make guest-bench` has built.
    func benchMachine(
        _ guest: BenchGuestOptions, logger: Logger
    ) throws -> (driver: QEMUDriver, machine: VMConfiguration) {
        let image = try GuestImage.locateBench(kernel: guest.kernel, initramfs: guest.initramfs)
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
