import Glibc
import OCISpec

extension DiskRootPlanner {
    /// A mount of the engine's request, with its type taken apart.
    struct Entry {
        let mount: RootMount
        let index: Int
        /// `format`, `mkdir`, `mkfs`: what stands before the type (docs/mounts.md of containerd).
        let transformers: [String]
        let type: String

        init(_ mount: RootMount, index: Int) {
            self.mount = mount
            self.index = index
            var words = mount.type.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
            type = words.popLast() ?? ""
            transformers = words
        }

        /// Whether it makes the root one of disks.
        var isOnDisk: Bool { Mount.diskTypes.contains(type) || type == "loop" }

        /// File systems of the host's kernel that have block devices of their own, which the host has mounted already.
        private static let hosts: Set<String> = ["bind", "overlay", "btrfs", "zfs"]

        /// - Throws: for a file system in a file or on a block device that the guest's kernel does not have, and for an unknown prefix.
        func refuseOtherFileSystems() throws {
            for name in transformers where !["format", "mkdir", "mkfs"].contains(name) {
                throw SandboxError.unsupported("rootfs[\(index)].type: \(mount.type): the prefix \(name)/")
            }
            if isOnDisk || Self.hosts.contains(type) { return }
            var facts = stat()
            let isFile =
                stat(mount.source, &facts) == 0 && [S_IFREG, S_IFBLK].contains(facts.st_mode & S_IFMT)
            guard isFile || type == "xfs" || !transformers.isEmpty else { return }
            let known = Mount.diskTypes.sorted().joined(separator: ", ")
            throw SandboxError.unsupported("rootfs[\(index)].type: \(type) on a disk (the guest's kernel has \(known))")
        }
    }
}

extension DiskRootPlanner.Entry {
    /// A mount's options, sorted by who reads them.
    struct Options {
        var isReadOnly = false
        /// `X-containerd.mkdir.path`.
        var directories: [SandboxPlan.GuestDirectory] = []
        /// The file system's own.
        var others: [String] = []
    }

    private static let prefix = "X-containerd."

    /// - Throws: `SandboxError` for an option that asks for what a guest can't have.
    func options(_ active: [ActiveMount]) throws -> Options {
        var options = Options()
        for text in mount.options {
            let option = try MountTemplate.expand(text, active)
            switch option {
            case "ro": options.isReadOnly = true
            case "rw": options.isReadOnly = false
            case "loop", "bind", "rbind", "defaults", "": continue
            case _ where option.hasPrefix(Self.prefix + "mkfs."): continue
            case _ where option.hasPrefix(Self.prefix + "mkdir.path="):
                options.directories.append(try Self.directory(option.dropFirst((Self.prefix + "mkdir.path=").count)))
            case _ where option.hasPrefix(Self.prefix):
                throw SandboxError.unsupported("options: \(option)")
            default: options.others.append(option)
            }
        }
        return options
    }

    /// `PATH[:MODE[:UID:GID]]`.
    private static func directory(_ value: Substring) throws -> SandboxPlan.GuestDirectory {
        let parts = value.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        var directory = SandboxPlan.GuestDirectory(path: parts[0], mode: 0o700)
        let numbers = [2, 4].contains(parts.count) ? parts.dropFirst(2).map { UInt32($0) } : []
        if parts.count > 1 {
            guard let mode = UInt32(parts[1], radix: 8), mode & ~0o777 == 0, [2, 4].contains(parts.count),
                !numbers.contains(nil)
            else { throw SandboxError.invalid("options: \(prefix)mkdir.path=\(value)") }
            directory.mode = mode
        }
        if numbers.count == 2 { (directory.uid, directory.gid) = (numbers[0] ?? 0, numbers[1] ?? 0) }
        return directory
    }
}
