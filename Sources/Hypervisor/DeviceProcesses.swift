import CLinux
import Glibc
import Jail
import LinuxSystem
import VMMControl

/// One of Martlet's own processes of a virtual machine, and the client of its control socket.
package final class DeviceProcess: Sendable {
    let process: MachineProcess
    package let client: ControlClient

    package var child: ChildProcess { process.child }

    /// Starts `martlet-vmm`, or `martlet-device` with the `kind` of device (`vsock`, `files` or `blk`). What it prints goes to
    /// `log`, line by line.
    ///
    /// - Parameter user: of its jail.
    package init(
        _ program: String, _ kind: String? = nil, user: UInt32 = JailPlan.nobody,
        log: @Sendable @escaping (String) -> Void,
        onEvent: @Sendable @escaping (ControlEvent) -> Void
    ) throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        let arguments = kind.map { [$0] } ?? []
        process = try MachineProcess(
            ([program] + arguments).joined(separator: " "), executable: try Programs.own(program),
            arguments: arguments + ["--uid", "\(user)"], descriptors: [theirs], log: log)
        client = ControlClient(control: ours, onEvent: onEvent)
    }
}

/// Martlet's own processes of a machine that is being started: when that fails, all of them are ended.
struct DeviceProcesses {
    private let watch: MachineWatch
    private let user: UInt32
    private let log: @Sendable (String) -> Void
    /// In the order of their starts.
    private(set) var all: [MachineProcess] = []

    /// - Parameters:
    ///   - watch: gets the processes' events.
    ///   - user: of their jails.
    init(_ watch: MachineWatch, user: UInt32, log: @Sendable @escaping (String) -> Void) {
        self.watch = watch
        self.user = user
        self.log = log
    }

    /// Starts a process, as `DeviceProcess` does.
    ///
    /// - Parameter name: of the device, for messages.
    mutating func start(_ program: String, _ kind: String? = nil, as name: String) throws -> DeviceProcess {
        let watch = watch
        let device = try DeviceProcess(program, kind, user: user, log: log) { watch.take($0, from: name) }
        all.append(device.process)
        return device
    }

    /// Ends the processes after a failed start.
    ///
    /// - Returns: the failure; where a process ended by itself, what that printed.
    func abandon(after error: any Error) -> any Error {
        all.abandon()
        guard error as? DeviceError == .closed else { return error }
        let output = all.map { $0.outputTail() }.filter { !$0.isEmpty }.joined(separator: "; ")
        return HypervisorError("a process of the machine ended at its start: \(output)")
    }
}

/// Where Martlet's own programs are: beside the running executable, or in `../libexec/martlet` of an installation.
public enum Programs {
    /// The absolute path of one of Martlet's own programs.
    public static func own(_ name: String) throws -> String {
        guard let executable = symbolicLink("/proc/self/exe") else {
            throw HypervisorError("\(name) not found: /proc/self/exe can't be read")
        }
        let directory = executable.split(separator: "/").dropLast().map { "/" + $0 }.joined()
        let paths = ["\(directory)/\(name)", "\(directory)/../libexec/martlet/\(name)"]
        for path in paths where access(path, X_OK) == 0 { return path }
        throw HypervisorError("\(name) not found: neither \(paths.joined(separator: " nor "))")
    }
}
