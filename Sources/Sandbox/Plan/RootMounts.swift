import CLinux
import Glibc
import LinuxSystem
import OCISpec

/// A mount that an engine's snapshotter describes, in fstab's terms.
package struct RootMount: Sendable, Equatable {
    package var type: String
    package var source: String
    /// Below the root file system; empty: the root itself.
    package var target: String
    package var options: [String]

    package init(type: String, source: String, target: String, options: [String]) {
        (self.type, self.source, self.target, self.options) = (type, source, target, options)
    }
}

/// The mounts that make a container's root file system, as containerd's snapshotters describe them.
///
/// They are made in a mount namespace that lasts for a moment, and kept as a detached tree: nothing is mounted on the host,
/// so nothing stays mounted, however this process ends.
struct RootMounts: Sendable {
    private let mounts: [RootMount]
    private let target: String

    init(_ mounts: [RootMount], bundle: Bundle) {
        self.mounts = mounts
        target = bundle.rootPath
    }

    /// A directory of the tree; nil where there is nothing to mount.
    func tree() async throws -> SharedDescriptor? {
        if mounts.isEmpty { return nil }
        let copy = self
        return try await onThread("root mounts") { try copy.make() }
    }

    /// On a thread of its own, whose mount namespace goes with it.
    private func make() throws -> SharedDescriptor {
        try check("unshare", "mount namespace", unshare(CLONE_NEWNS | CLONE_FS))
        try check("mount", "/ private", Glibc.mount("none", "/", nil, MountFlag.recursive | MountFlag.isPrivate, nil))
        if mkdir(target, 0o711) != 0, errno != EEXIST { throw SystemError.last("mkdir", target) }
        for (index, entry) in mounts.enumerated() {
            do { try mount(entry) } catch {
                throw SandboxError.failed("rootfs[\(index)] (\(entry.type) \(entry.source)): \(error)")
            }
        }
        return try cloneTree(target, isRecursive: true)
    }

    private func mount(_ entry: RootMount) throws {
        let options = FlagsAndData(entry.options)
        let place = entry.target.isEmpty ? target : try inside(entry.target)
        // mount(2) takes one page: an image of many layers is mounted from the directory that they have in common.
        var data = options.data
        if data.utf8.count > 4095, let shorter = OverlayLayers(data) {
            try check("chdir", shorter.directory, chdir(shorter.directory))
            data = shorter.data
        }
        defer { _ = chdir("/") }
        guard data.utf8.count <= 4095 else {
            throw SystemError("mount", "with \(data.utf8.count) bytes of options", errno: .argListTooLong)
        }
        let isBind = options.flags & MountFlag.bind != 0 || entry.type == "bind"
        let flags = isBind ? options.flags | MountFlag.bind : options.flags
        try check(
            "mount", place,
            Glibc.mount(entry.source, place, isBind ? nil : entry.type, flags, data.isEmpty ? nil : data))
        if isBind, flags & MountFlag.readOnly != 0 {
            try check(
                "remount", place,
                Glibc.mount(nil, place, nil, MountFlag.remount | MountFlag.bind | MountFlag.readOnly, nil))
        }
    }

    /// A path below the root, which must not lead out of it.
    private func inside(_ path: String) throws -> String {
        guard !path.split(separator: "/").contains("..") else { throw SandboxError.invalid("target: \(path)") }
        return target + "/" + path
    }
}

/// A mount's options in fstab's words, as mount(2) takes them.
struct FlagsAndData: Equatable {
    var flags: UInt = 0
    var data = ""

    private static let known: [String: (flag: UInt, on: Bool)] = [
        "ro": (MountFlag.readOnly, true), "rw": (MountFlag.readOnly, false), "nosuid": (MountFlag.noSetID, true),
        "suid": (MountFlag.noSetID, false), "nodev": (MountFlag.noDevices, true), "dev": (MountFlag.noDevices, false),
        "noexec": (MountFlag.noExecution, true), "exec": (MountFlag.noExecution, false),
        "sync": (MountFlag.synchronous, true),
        "async": (MountFlag.synchronous, false), "dirsync": (MountFlag.synchronousDirectories, true),
        "noatime": (MountFlag.noAccessTime, true), "atime": (MountFlag.noAccessTime, false),
        "nodiratime": (MountFlag.noDirectoryAccessTime, true), "relatime": (MountFlag.relativeAccessTime, true),
        "strictatime": (MountFlag.strictAccessTime, true), "bind": (MountFlag.bind, true),
        "rbind": (MountFlag.bind | MountFlag.recursive, true), "defaults": (0, true),
    ]

    init(_ options: [String]) {
        var own: [String] = []
        for option in options {
            guard let (flag, on) = Self.known[option] else {
                own.append(option)
                continue
            }
            flags = on ? flags | flag : flags & ~flag
        }
        data = own.joined(separator: ",")
    }
}

/// Overlay options whose lower directories are named from the directory that all have in common.
struct OverlayLayers: Equatable {
    var directory: String
    var data: String

    /// nil where that makes nothing shorter.
    init?(_ data: String) {
        var options = data.split(separator: ",").map(String.init)
        guard let index = options.firstIndex(where: { $0.hasPrefix("lowerdir=") }) else { return nil }
        let layers = options[index].dropFirst("lowerdir=".count).split(separator: ":").map(String.init)
        guard var common = layers.first?.split(separator: "/").dropLast(), layers.count > 1 else { return nil }
        for layer in layers {
            let parts = layer.split(separator: "/")
            while !parts.starts(with: common) { common = common.dropLast() }
        }
        guard !common.isEmpty else { return nil }
        directory = "/" + common.joined(separator: "/")
        let short = layers.map { $0.split(separator: "/").dropFirst(common.count).joined(separator: "/") }
        options[index] = "lowerdir=" + short.joined(separator: ":")
        self.data = options.joined(separator: ",")
    }
}
