import CLinux
import Glibc
import Hypervisor
import LinuxSystem

/// Why a measurement could not be made.
public struct BenchError: Error, CustomStringConvertible, Sendable {
    public var description: String
    public init(_ description: String) { self.description = description }
}

/// The guest that both sides boot.
struct BootedGuest: Sendable {
    var machine: VMConfiguration
    /// Whether the guest is `TinyGuest`.
    var isTiny: Bool
    var timeout: Duration

    /// Whether a line of the console ends the measurement. The tiny guest writes an empty line.
    func isFirstMessage(_ line: String) -> Bool { line == (isTiny ? "" : "martlet-agent ready") }
}

/// A machine of the built-in VMM, from the start of its process to the guest's first message.
enum BuiltInStart {
    /// Milliseconds.
    static func measure(_ guest: BootedGuest) async throws -> Double {
        let log = try PhaseLog(awaiting: guest.isTiny ? "guest's line" : "agent ready")
        let begin = monotonicNanoseconds()
        let machine = try KVMDriver(logger: log.logger).launch(guest.machine)
        let ready = log.wait(timeout: guest.timeout)
        machine.kill(.ended("measured"))
        let end = await machine.end()
        guard let ready else {
            throw BenchError(
                "the guest printed nothing within \(guest.timeout): \(end); \(machine.consoleTail.joined(separator: " | "))"
            )
        }
        return Double(ready - begin) / 1e6
    }
}

/// A QEMU microvm with the same kernel, agent, command line, memory and vCPUs on the same KVM. It has no PCI and so no virtio-pmem:
/// its agent comes in the initramfs.
///
/// It is configured as QEMU's documentation recommends for short start times (docs/system/i386/microvm.rst), with ACPI and a PVH
/// entry.
enum QEMUStart {
    static func arguments(_ guest: BootedGuest, vsock: Int?) -> [String] {
        let vm = guest.machine
        let serial = guest.isTiny ? "on" : "off"
        return [
            "-M", "microvm,acpi=on,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=\(serial)", "-accel", "kvm",
            "-cpu", "host", "-smp", "\(vm.vcpus)", "-m", "\(vm.memoryMiB)M", "-nodefaults", "-no-user-config",
            "-display", "none", "-no-reboot", "-kernel", vm.kernel, "-chardev", "socket,id=console,fd=3",
        ]
            + (guest.isTiny
                ? ["-serial", "chardev:console"]
                : [
                    "-initrd", vm.initramfs ?? "", "-append", vm.kernelArguments.joined(separator: " "), "-device",
                    "virtio-serial-device", "-device", "virtconsole,chardev=console", "-device", "virtio-rng-device",
                ] + (vsock.map { ["-device", "vhost-vsock-device,guest-cid=\($0)"] } ?? []))
    }

    /// Milliseconds.
    static func measure(_ guest: BootedGuest, executable: String, vsock: Int?) async throws -> Double {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let begin = monotonicNanoseconds()
        let (qemu, output) = try ChildProcess.withPipe(
            "qemu",
            .init(
                executable: executable, arguments: arguments(guest, vsock: vsock),
                environment: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                descriptors: [-1, ChildProcess.pipe, ChildProcess.pipe, theirs.raw],
                newSession: true, diesWithParent: true))
        let ready = try Promise<UInt64>()
        let console = try Console("guest console", source: ours) {
            if guest.isFirstMessage($0) { ready.settle(monotonicNanoseconds()) }
        }
        let errors = try Console("log qemu", source: output) { _ in }
        let time = ready.wait(timeout: guest.timeout)
        qemu.signal(SIGKILL)
        let end = await qemu.end()
        guard let time else {
            let output = (errors.tail(3) + console.tail(5)).joined(separator: " | ")
            throw BenchError("QEMU's guest printed nothing within \(guest.timeout): \(end); \(output)")
        }
        return Double(time - begin) / 1e6
    }
}
