import GuestSystem
import LinuxSystem

/// The options of one mount of a config.json, sorted by what the kernel does with them (runtime-spec, config.md,
/// "Linux mount options"; mount_setattr(2)).
public struct MountOptions: Codable, Sendable, Equatable {
    /// Attributes of a mount to set and to clear, as mount_setattr(2) takes them (MOUNT_ATTR_*).
    public struct Attributes: Codable, Sendable, Equatable {
        public var set: UInt64 = 0
        public var clear: UInt64 = 0

        public var isEmpty: Bool { self.set == 0 && clear == 0 }
    }

    public var isBind = false
    /// With a bind: the mounts below the source too.
    public var isRecursive = false
    public var attributes = Attributes()
    /// Of this mount and all below it.
    public var recursiveAttributes = Attributes()
    /// Flags of the file system, not of the mount (MS_SYNCHRONOUS and its like).
    public var fileSystemFlags: UInt = 0
    /// MS_SHARED and its like, in order.
    public var propagation: [UInt] = []
    /// A new tmpfs begins with what lies below it.
    public var copiesUp = false
    /// What the file system itself reads, comma separated.
    public var data = ""

    /// The mount is there already, and changes.
    public var isRemount: Bool { fileSystemFlags & MountFlag.remount != 0 }

    public init() {}

    /// Throws when an option asks for what the agent does not do.
    public init(_ options: [String]) throws(AgentFailure) {
        var own: [String] = []
        for option in options {
            if Self.refused.contains(option) {
                throw AgentFailure(.unimplemented, "mount option \(option) is not supported")
            }
            switch option {
            case "defaults", "": continue
            case "bind": isBind = true
            case "tmpcopyup": copiesUp = true
            case "rbind": (isBind, isRecursive) = (true, true)
            default:
                if !apply(option) { own.append(option) }
            }
        }
        data = own.joined(separator: ",")
    }

    private mutating func apply(_ option: String) -> Bool {
        if let flag = Self.propagations[option] {
            propagation.append(flag)
        } else if let (flag, on) = Self.fileSystemOptions[option] {
            fileSystemFlags = on ? fileSystemFlags | flag : fileSystemFlags & ~flag
        } else if let change = Self.attributeOptions[option] {
            change.apply(to: &attributes)
        } else if option.hasPrefix("r"), let change = Self.attributeOptions[String(option.dropFirst())] {
            change.apply(to: &recursiveAttributes)
        } else {
            return false
        }
        return true
    }

    /// One option's change of attributes; a later option wins over an earlier one.
    struct Change {
        var bits: UInt64
        var on: Bool
        /// Bits of which only one value can hold.
        var field: UInt64 = 0

        func apply(to attributes: inout Attributes) {
            let all = bits | field
            attributes.set = on ? attributes.set & ~all | bits : attributes.set & ~all
            attributes.clear = on ? attributes.clear & ~all | field : attributes.clear | all
        }
    }

    // linux/mount.h.
    static let readOnly: UInt64 = 0x1
    static let noSetID: UInt64 = 0x2
    static let noDevices: UInt64 = 0x4
    static let noExecution: UInt64 = 0x8
    static let accessTimes: UInt64 = 0x70
    static let noAccessTime: UInt64 = 0x10
    static let strictAccessTime: UInt64 = 0x20
    static let noDirectoryAccessTime: UInt64 = 0x80
    static let noSymlinks: UInt64 = 0x20_0000

    static let attributeOptions: [String: Change] = [
        "ro": Change(bits: readOnly, on: true), "rw": Change(bits: readOnly, on: false),
        "nosuid": Change(bits: noSetID, on: true), "suid": Change(bits: noSetID, on: false),
        "nodev": Change(bits: noDevices, on: true), "dev": Change(bits: noDevices, on: false),
        "noexec": Change(bits: noExecution, on: true), "exec": Change(bits: noExecution, on: false),
        "nodiratime": Change(bits: noDirectoryAccessTime, on: true),
        "diratime": Change(bits: noDirectoryAccessTime, on: false),
        "noatime": Change(bits: noAccessTime, on: true, field: accessTimes),
        "strictatime": Change(bits: strictAccessTime, on: true, field: accessTimes),
        // 0 in the field: relative, the kernel's default.
        "relatime": Change(bits: 0, on: true, field: accessTimes),
        "atime": Change(bits: 0, on: true, field: accessTimes),
        "norelatime": Change(bits: 0, on: true, field: accessTimes),
        "nostrictatime": Change(bits: 0, on: true, field: accessTimes),
        "nosymfollow": Change(bits: noSymlinks, on: true), "symfollow": Change(bits: noSymlinks, on: false),
    ]

    static let fileSystemOptions: [String: (UInt, Bool)] = [
        "sync": (MountFlag.synchronous, true), "async": (MountFlag.synchronous, false),
        "dirsync": (MountFlag.synchronousDirectories, true),
        "mand": (MountFlag.mandatoryLocks, true), "nomand": (MountFlag.mandatoryLocks, false),
        "iversion": (MountFlag.inodeVersion, true), "noiversion": (MountFlag.inodeVersion, false),
        "lazytime": (MountFlag.lazyTime, true), "nolazytime": (MountFlag.lazyTime, false),
        "silent": (MountFlag.silent, true), "loud": (MountFlag.silent, false),
        "acl": (MountFlag.accessLists, true), "noacl": (MountFlag.accessLists, false),
        "remount": (MountFlag.remount, true),
    ]

    static let propagations: [String: UInt] = [
        "private": MountFlag.isPrivate, "rprivate": MountFlag.isPrivate | MountFlag.recursive,
        "shared": MountFlag.shared, "rshared": MountFlag.shared | MountFlag.recursive,
        "slave": MountFlag.slave, "rslave": MountFlag.slave | MountFlag.recursive,
        "unbindable": MountFlag.unbindable,
        "runbindable": MountFlag.unbindable | MountFlag.recursive,
    ]

    static let refused: Set<String> = ["idmap", "ridmap"]

    /// The flags of mount(2) for a new file system: its own, and the attributes of its mount.
    public var mountFlags: UInt {
        var flags = fileSystemFlags
        let pairs: [(UInt64, UInt)] = [
            (Self.readOnly, MountFlag.readOnly), (Self.noSetID, MountFlag.noSetID),
            (Self.noDevices, MountFlag.noDevices), (Self.noExecution, MountFlag.noExecution),
            (Self.noAccessTime, MountFlag.noAccessTime), (Self.strictAccessTime, MountFlag.strictAccessTime),
            (Self.noDirectoryAccessTime, MountFlag.noDirectoryAccessTime), (Self.noSymlinks, MountFlag.noSymlinks),
        ]
        for (attribute, flag) in pairs where attributes.set & attribute != 0 { flags |= flag }
        return flags
    }
}
