import Glibc
import LinuxSystem
import OCISpec

/// The flags of the mount that a bind mount's source lies on: the guest mounts a file device of its own, which has none of them.
struct SourceFlags {
    private let flags: UInt

    /// - Parameter source: a path of the host; one that is gone has none.
    init(of source: String) {
        var facts = Glibc.statvfs()
        flags = statvfs(source, &facts) == 0 ? facts.f_flag : Self.relativeAccessTimes
    }

    /// - Parameter flags: as statvfs(3) has them.
    init(_ flags: UInt) { self.flags = flags }

    // Of statvfs(3); the others are those of mount(2).
    static let relativeAccessTimes: UInt = 4096
    static let noSymlinks: UInt = 8192

    private static let accessTimes = ["noatime", "relatime", "strictatime", "nodiratime"]
    /// What says nothing about the mount's flags.
    private static let others: Set<String> = [
        "bind", "rbind", "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable",
        "idmap", "ridmap", "defaults", "",
    ]

    /// The options by which the guest treats a bind mount as the host would, beside those that it has. runc's rules: a mount without
    /// any flag has all of its source; one with some keeps how its source treats access times, where it says nothing about them; one
    /// in a user namespace of the container's can't lose what protects the host. And what is nosuid or nodev on the host stays it.
    ///
    /// - Parameters:
    ///   - options: of the mount.
    ///   - nosuid: whether set-user-id bits mean nothing in bind mounts, whatever the source has and the mount says.
    ///   - ownUsers: whether the container has users of its own.
    /// - Returns: options to be added behind them.
    func options(beside options: [String], nosuid: Bool, ownUsers: Bool) -> [String] {
        let hasNone = options.allSatisfy(Self.others.contains)
        var found: [String] = []
        func keep(_ name: String, unless opposite: String, _ isSet: Bool) {
            if isSet, !options.contains(name), opposite.isEmpty || !options.contains(opposite) { found.append(name) }
        }
        keep("nosuid", unless: nosuid ? "" : "suid", nosuid || has(MountFlag.noSetID))
        keep("nodev", unless: "dev", has(MountFlag.noDevices))
        let keepsLocked = hasNone || ownUsers
        keep("ro", unless: "rw", keepsLocked && has(MountFlag.readOnly))
        keep("noexec", unless: "exec", keepsLocked && has(MountFlag.noExecution))
        keep("nosymfollow", unless: "symfollow", hasNone && has(Self.noSymlinks))
        // A mount of the container's own users can't change them.
        if !ownUsers, !options.contains(where: Self.accessTimes.contains) { found += accessTimes }
        return found
    }

    /// None where they are the kernel's own.
    private var accessTimes: [String] {
        let directories = has(MountFlag.noDirectoryAccessTime) ? ["nodiratime"] : []
        if has(MountFlag.noAccessTime) { return ["noatime"] + directories }
        return (has(Self.relativeAccessTimes) ? [] : ["strictatime"]) + directories
    }

    private func has(_ flag: UInt) -> Bool { flags & flag != 0 }
}
