import CLinux
import Glibc
import LinuxSystem
import VMMControl

/// A `martlet-device` process and the host's word with it.
final class DeviceProcess: Sendable {
    let child: ChildProcess
    let client: DeviceClient

    /// Starts the device process of `kind` (`vsock`, `files` or `blk`). What it prints goes to `log`, line by line.
    init(
        kind: String, executable: String, log: @Sendable @escaping (String) -> Void,
        onNotice: @Sendable @escaping (DeviceNotice) -> Void
    ) throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        let (output, input) = try SharedDescriptor.pipe()
        child = try ChildProcess(
            "martlet-device \(kind)",
            .init(
                executable: executable, arguments: [kind], descriptors: [-1, input.raw, input.raw, theirs.raw],
                newSession: true, diesWithParent: true))
        let name = child.name
        _ = try Console("log \(kind)", source: output) { log("\(name): \($0)") }
        client = DeviceClient(control: ours, onNotice: onNotice)
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
