import CLinux
import Glibc
import Hypervisor
import LinuxSystem

/// QEMU with a console and a file device, and nothing else of the host.
final class Guest {
    private let qemu: ChildProcess
    let console: Console

    /// - Parameters:
    ///   - files: the machine's end of the file server's vhost-user connection.
    ///   - log: gets what QEMU complains about.
    ///   - onLine: gets each line of the console as it comes.
    init(
        _ plan: FilesRun.Plan, files: SharedDescriptor, log: @Sendable @escaping (String) -> Void,
        onLine: @Sendable @escaping (String) -> Void
    ) throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let output: SharedDescriptor
        (qemu, output) = try ChildProcess.withPipe(
            "qemu",
            .init(
                executable: plan.driver.executable,
                arguments: plan.driver.machineArguments(plan.machine)
                    + QEMUDriver.consoleArguments(descriptor: 3) + QEMUDriver.filesArguments(descriptor: 4),
                environment: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                descriptors: [-1, ChildProcess.pipe, ChildProcess.pipe, theirs.raw, files.raw], newSession: true,
                diesWithParent: true))
        _ = try Console("log qemu", source: output) { log("qemu: \($0)") }
        console = try Console("guest console", source: ours, onLine: onLine)
    }

    /// Waits until the guest has powered off. Answers why it had to be ended before, if so.
    ///
    /// - Parameter serverEnded: how the file server has ended; the guest would wait for it for ever.
    func wait(_ timeout: Duration, serverEnded: () -> ProcessEnd?) throws -> String? {
        let deadline = ContinuousClock.now + timeout
        while qemu.waitForEnd(timeout: .milliseconds(200)) == nil {
            // A server that has lost its machine ends too: give the machine's own end the time to show.
            if let end = serverEnded(), qemu.waitForEnd(timeout: .seconds(1)) == nil {
                return "the file server \(end)"
            }
            if ContinuousClock.now > deadline { return "not done after \(timeout)" }
        }
        console.waitForEnd(timeout: .seconds(5))
        return qemu.ended.flatMap { $0 == .exited(0) ? nil : "qemu \($0)" }
    }

    /// Ends QEMU if it runs still.
    func end() {
        qemu.signal(SIGKILL)
        _ = qemu.waitForEnd(timeout: .seconds(5))
    }
}
