import CLinux
import Glibc
import Hypervisor
import LinuxSystem

/// A guest in QEMU, with a console.
final class Guest {
    private let qemu: ChildProcess
    let console: Console

    /// The descriptor of QEMU's process at which a guest's devices begin; the one before is its console.
    static let firstDescriptor = 4

    /// - Parameters:
    ///   - devices: QEMU's arguments for the devices that the guest is to have beside the machine's own.
    ///   - hasVirtioConsole: its console is `hvc0`, not a serial port.
    ///   - sockets: what these name as descriptors, from `firstDescriptor` on.
    ///   - log: gets QEMU's error messages.
    ///   - onLine: gets each line of the console as it arrives.
    init(
        _ driver: QEMUDriver, _ machine: VMConfiguration, devices: [String], hasVirtioConsole: Bool = false,
        sockets: [SharedDescriptor],
        log: @Sendable @escaping (String) -> Void, onLine: @Sendable @escaping (String) -> Void
    ) throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let output: SharedDescriptor
        (qemu, output) = try ChildProcess.withPipe(
            "qemu",
            .init(
                executable: driver.executable,
                arguments: driver.machineArguments(machine)
                    + (hasVirtioConsole
                        ? QEMUDriver.virtioConsoleArguments(descriptor: Self.firstDescriptor - 1)
                        : QEMUDriver.consoleArguments(descriptor: Self.firstDescriptor - 1)) + devices,
                environment: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                descriptors: [-1, ChildProcess.pipe, ChildProcess.pipe, theirs.raw] + sockets.map(\.raw),
                newSession: true, diesWithParent: true))
        _ = try Console("log qemu", source: output) { log("qemu: \($0)") }
        console = try Console("guest console", source: ours, onLine: onLine)
    }

    /// Waits until the guest has powered off.
    ///
    /// - Parameter serverEnded: returns how the process that serves a device has ended, if it has. Without it the guest would hang.
    /// - Returns: nil when the guest has powered off, else the reason why it must be ended.
    func wait(_ timeout: Duration, serverEnded: () -> ProcessEnd?) throws -> String? {
        let deadline = ContinuousClock.now + timeout
        while qemu.waitForEnd(timeout: .milliseconds(200)) == nil {
            // The server also ends when its machine is gone. Wait for the machine's end first.
            if let end = serverEnded(), qemu.waitForEnd(timeout: .seconds(1)) == nil {
                return "the device's process \(end)"
            }
            if ContinuousClock.now > deadline { return "did not end within \(timeout)" }
        }
        console.waitForEnd(timeout: .seconds(5))
        return qemu.ended.flatMap { $0 == .exited(0) ? nil : "qemu \($0)" }
    }

    /// Ends QEMU if it still runs.
    func end() {
        qemu.signal(SIGKILL)
        _ = qemu.waitForEnd(timeout: .seconds(5))
    }
}
