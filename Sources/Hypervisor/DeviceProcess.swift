import CLinux
import Glibc
import LinuxSystem
import VMMControl

/// One of Martlet's own processes of a virtual machine, and the host's word with it.
package final class DeviceProcess: Sendable {
    package let child: ChildProcess
    package let client: ControlClient
    private let output: Console

    /// Starts `martlet-vmm`, or `martlet-device` with the `kind` of device (`vsock`, `files` or `blk`). What it prints goes to
    /// `log`, line by line.
    package init(
        _ program: String, _ kind: String? = nil, log: @Sendable @escaping (String) -> Void,
        onEvent: @Sendable @escaping (ControlEvent) -> Void
    ) throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        let name = ([program] + (kind.map { [$0] } ?? [])).joined(separator: " ")
        let output: SharedDescriptor
        (child, output) = try ChildProcess.withPipe(
            name,
            .init(
                executable: try Programs.own(program), arguments: kind.map { [$0] } ?? [],
                descriptors: [-1, ChildProcess.pipe, ChildProcess.pipe, theirs.raw], newSession: true,
                diesWithParent: true))
        self.output = try Console("log \(kind ?? program)", source: output) { log("\(name): \($0)") }
        client = ControlClient(control: ours, onEvent: onEvent)
    }

    /// The last words of a process that has ended.
    func outputTail() -> String {
        output.waitForEnd(timeout: .seconds(1))
        return output.tail(3).joined(separator: "; ")
    }
}

/// Where the helper programs are: beside the running executable, or in `../libexec/martlet` of an installation.
public enum Programs {
    /// The absolute path of one of Martlet's own programs.
    public static func own(_ name: String) throws -> String {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = try check("readlink", "/proc/self/exe", readlink("/proc/self/exe", &buffer, buffer.count))
        let executable = String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let directory = executable.split(separator: "/").dropLast().map { "/" + $0 }.joined()
        let places = ["\(directory)/\(name)", "\(directory)/../libexec/martlet/\(name)"]
        for place in places where access(place, X_OK) == 0 { return place }
        throw HypervisorError("\(name) not found: neither \(places.joined(separator: " nor "))")
    }
}
