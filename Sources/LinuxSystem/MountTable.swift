import Glibc

/// A mount, as /proc/PID/mountinfo lists it (proc(5)).
public struct MountEntry: Sendable, Equatable {
    /// The mount's number, which statx(2) gives as STATX_MNT_ID.
    public var id: UInt64
    /// The file system's number, `major:minor`.
    public var device: String
    /// The part of the file system that is mounted: a path in it.
    public var root: String
    public var mountPoint: String
    /// The mount itself is read-only, whatever its file system is.
    public var isReadOnly: Bool
    /// Whether it is shared, or a slave: mounts below it are told to others, or come from another one (mount_namespaces(7)).
    public var propagates: Bool
    /// The file system's type: `tmpfs`.
    public var type: String
    /// Options of the file system, not of the mount.
    public var options: [String]

    /// What tells a mount from others. The number alone does not: the kernel gives it to the next mount when this one has gone.
    public struct Identity: Hashable, Sendable {
        public var id: UInt64
        public var device: String
        public var root: String
    }

    public var identity: Identity { Identity(id: id, device: device, root: root) }

    /// The mounts that this process sees. A mount comes after those that it covers.
    public static func all() throws(SystemError) -> [MountEntry] {
        list(try readText("/proc/self/mountinfo", limit: 64 << 20))
    }

    /// Detaches all mounts below a directory, the last first. A mount in use disappears when its last user is gone (MNT_DETACH).
    ///
    /// - Parameter directory: absolute, without symbolic links.
    /// - Throws: `SystemError` when the mounts can't be read. A mount that can't be detached stays.
    public static func detachAll(below directory: String) throws(SystemError) {
        for entry in try all().reversed() where entry.mountPoint.hasPrefix("\(directory)/") {
            umount2(entry.mountPoint, Int32(MNT_DETACH))
        }
    }

    /// Parses the text of mountinfo. Malformed lines are skipped.
    public static func list(_ text: String) -> [MountEntry] {
        text.split(separator: "\n").compactMap { line in
            // 36 35 98:0 /root /mnt rw … - type source options
            let fields = line.split(separator: " ").map(String.init)
            guard let dash = fields.firstIndex(of: "-"), fields.count > dash + 3, dash > 5, let id = UInt64(fields[0])
            else { return nil }
            return MountEntry(
                id: id, device: fields[2], root: unescaped(fields[3]), mountPoint: unescaped(fields[4]),
                isReadOnly: fields[5].split(separator: ",").contains("ro"),
                propagates: fields[6..<dash].contains { $0.hasPrefix("shared:") || $0.hasPrefix("master:") },
                type: fields[dash + 1],
                options: fields[dash + 3].split(separator: ",").map(String.init))
        }
    }

    /// Replaces the octal escapes of white space and backslashes (`\040`).
    private static func unescaped(_ text: String) -> String {
        let bytes = Array(text.utf8)
        var plain: [UInt8] = []
        var index = 0
        while index < bytes.count {
            if bytes[index] == UInt8(ascii: "\\"), index + 3 < bytes.count,
                let value = UInt8(String(decoding: bytes[index + 1...index + 3], as: UTF8.self), radix: 8)
            {
                plain.append(value)
                index += 4
            } else {
                plain.append(bytes[index])
                index += 1
            }
        }
        return String(decoding: plain, as: UTF8.self)
    }
}
