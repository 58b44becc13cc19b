import CLinux
import Glibc

/// Which file on the host: no two files that exist at a time have the same.
struct FileIdentity: Hashable {
    var device: UInt64
    var inode: UInt64
    /// S_IFMT bits.
    var type: UInt32
}

/// What statx(2) says of a file.
struct FileStatus {
    private(set) var raw = CLinux.statx()

    private static let mask: UInt32 = 0x7ff  // STATX_BASIC_STATS

    /// Of the open file itself.
    init(of descriptor: Int32) throws(FileError) {
        try self.init(descriptor, "", martlet_AT_EMPTY_PATH)
    }

    /// Of `name` in a directory; a symbolic link is not followed.
    init(_ directory: Int32, _ name: UnsafePointer<CChar>) throws(FileError) {
        try self.init(directory, name, 0)
    }

    private init(_ directory: Int32, _ name: UnsafePointer<CChar>, _ flags: Int32) throws(FileError) {
        let all = flags | AT_SYMLINK_NOFOLLOW | martlet_AT_NO_AUTOMOUNT
        if martlet_statx(directory, name, all, Self.mask, &raw) < 0 { throw .last }
    }

    var device: UInt64 { UInt64(raw.stx_dev_major) << 32 | UInt64(raw.stx_dev_minor) }
    var type: UInt32 { UInt32(raw.stx_mode) & S_IFMT }
    var mode: UInt32 { UInt32(raw.stx_mode) }
    var isDirectory: Bool { type == S_IFDIR }
    var isRegular: Bool { type == S_IFREG }
    var identity: FileIdentity {
        FileIdentity(device: device, inode: raw.stx_ino, type: type)
    }

    /// The wire's attributes, with `inode` as the number that the guest's stat(2) shows.
    func attributes(inode: UInt64) -> fuse_attr {
        var result = fuse_attr()
        result.ino = inode
        result.size = raw.stx_size
        result.blocks = raw.stx_blocks
        result.atime = UInt64(bitPattern: raw.stx_atime.tv_sec)
        result.mtime = UInt64(bitPattern: raw.stx_mtime.tv_sec)
        result.ctime = UInt64(bitPattern: raw.stx_ctime.tv_sec)
        result.atimensec = raw.stx_atime.tv_nsec
        result.mtimensec = raw.stx_mtime.tv_nsec
        result.ctimensec = raw.stx_ctime.tv_nsec
        result.mode = mode
        result.nlink = raw.stx_nlink
        result.uid = raw.stx_uid
        result.gid = raw.stx_gid
        result.rdev = DeviceNumber.encode(major: raw.stx_rdev_major, minor: raw.stx_rdev_minor)
        result.blksize = raw.stx_blksize
        return result
    }
}

/// A number for a file whose own one could clash with another device's under the same `st_dev` of the guest: its
/// device mixed in, and the top bit set, where no file system's own numbers are.
func foreignInode(_ identity: FileIdentity) -> UInt64 {
    // The finalizer of SplitMix64: every input bit changes about half of the output's.
    var x = identity.inode &+ identity.device &* 0x9e37_79b9_7f4a_7c15
    x = (x ^ (x >> 30)) &* 0xbf58_476d_1ce4_e5b9
    x = (x ^ (x >> 27)) &* 0x94d0_49bb_1331_11eb
    return (x ^ (x >> 31)) | 1 << 63
}
