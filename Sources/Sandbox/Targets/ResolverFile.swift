import CLinux
import Glibc
import LinuxSystem

/// A container's /etc/resolv.conf on the host.
struct ResolverFile: Sendable, Equatable {
    private static let path = "/etc/resolv.conf"
    private static let maximumSize = 64 << 10
    /// As many as the C library asks (MAXNS, resolv.h).
    private static let maximumServers = 3

    /// A file, or a directory that has the file at its usual path.
    private let source: String
    private let isRoot: Bool

    /// The file that the container mounts, or the one in its root file system; nil where neither is a share.
    init?(_ plan: SandboxPlan.Container) {
        let mount = plan.spec.mounts.last { RootDirectory.components($0.destination) == ["etc", "resolv.conf"] }
        let place = mount?.source ?? plan.spec.root?.path
        guard let share = plan.shares.first(where: { $0.mountPoint == place }) else { return nil }
        source = share.source
        isRoot = mount == nil
    }

    /// The loopback addresses that it names as resolvers; empty where it can't be read.
    func loopbackServers() -> [IPAddress] {
        guard let text = try? read() else { return [] }
        return Self.loopbackServers(text)
    }

    static func loopbackServers(_ text: String) -> [IPAddress] {
        var result: [IPAddress] = []
        for line in text.split(whereSeparator: \.isNewline) {
            let words = line.split { $0 == " " || $0 == "\t" }
            guard words.count > 1, words[0] == "nameserver", let address = IPAddress(String(words[1])) else { continue }
            if address.isLoopback, !result.contains(address) { result.append(address) }
        }
        return Array(result.prefix(maximumServers))
    }

    /// The file may be the container's: nothing but a regular file is read, and no link leads out of its root.
    private func read() throws -> String {
        let flags = O_RDONLY | O_NONBLOCK | O_NOCTTY
        let file =
            isRoot
            ? try RootDirectory(source).open(Self.path, flags)
            : SharedDescriptor(try OwnedDescriptor.open(source, flags))
        guard try file.information().st_mode & S_IFMT == S_IFREG else { return "" }
        var bytes = [UInt8](repeating: 0, count: Self.maximumSize)
        let count = try check("read", source, Glibc.read(file.raw, &bytes, bytes.count))
        return String(decoding: bytes[..<count], as: UTF8.self)
    }
}

extension IPAddress {
    /// 127.0.0.0/8 or ::1.
    var isLoopback: Bool {
        bytes.count == 4 ? bytes[0] == 127 : bytes.dropLast().allSatisfy { $0 == 0 } && bytes[15] == 1
    }
}
