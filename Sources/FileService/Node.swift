import Glibc

/// A file that the guest knows by number. It has a location (the directory and the name by which it was last seen) and may
/// hold an O_PATH descriptor; either is enough to reach it, so that a guest may know many more files than a process may
/// have descriptors.
struct Node {
    /// Of the slot: a number given out for an earlier tenant does not match.
    var generation: UInt32 = 0
    var inUse = false
    /// No share leads here any more: every request but FORGET gets ESTALE.
    var isStale = false
    /// The root, or the directory of a file system: no file of the host.
    var isSynthetic = false
    /// The file system (`FileSystem.id`) that it belongs to.
    var fileSystem: Int32 = -1
    var identity = FileIdentity(device: 0, inode: 0, type: 0)
    /// Its device is not the one that the guest's device number stands for, so its own inode number may clash.
    var isForeign = false
    /// How often the guest got the number and has not forgotten it yet.
    var lookups: UInt64 = 0
    /// Nodes located in this one; open handles.
    var children = 0
    var handles = 0
    /// The handle opened last; it may be closed by now.
    var lastHandle: UInt64 = 0

    // MARK: Where it is

    /// The slot of the directory where it was last seen; 0 when that is not known (any more).
    var parent = 0
    var name: UnsafeMutablePointer<CChar>?
    /// The file was not found at its location; the next name seen replaces it, whatever shares lead there.
    var isMislocated = false
    /// Of a node that lost its location: the nearest and the outermost share that led there. -1: none.
    var formerShares: (nearest: Int32, outermost: Int32) = (-1, -1)

    // MARK: The share whose root it is

    /// The id of that share, a writable one where there are several; -1: none.
    var rootShare: Int32 = -1
    var isRootWritable = false
    /// The share's descriptor, which the share owns.
    var rootDescriptor: Int32 = -1

    // MARK: Its descriptor

    /// O_PATH, or -1.
    var descriptor: Int32 = -1
    /// The share through whose mount it was opened.
    var descriptorShare: Int32 = -1
    /// Neighbours in the list of descriptors that may be closed; 0 is none.
    var older = 0
    var newer = 0
    var isListed = false
    /// The request that used the descriptor last: not closed while that one is served.
    var usedBy: UInt64 = 0
    /// Change time and size at the last open, when that was settled: see `FileServer.mayKeepCache`.
    var openedChange: Int64 = 0
    var openedSize: UInt64 = 0

    var isShareRoot: Bool { rootShare >= 0 }
    var isDirectory: Bool { identity.type == S_IFDIR }
}
