import CLinux
import Glibc

/// The requests this server knows (include/uapi/linux/fuse.h, `enum fuse_opcode`).
enum FuseOperation: UInt32 {
    case lookup = 1
    case forget, getattr, setattr, readlink, symlink
    case mknod = 8
    case mkdir, unlink, rmdir, rename, link, open, read, write, statfs, release
    case fsync = 20
    case setxattr, getxattr, listxattr, removexattr, flush, initialize, opendir, readdir, releasedir
    case fsyncdir = 30
    case access = 34
    case create, interrupt
    case destroy = 38
    case ioctl
    case batchForget = 42
    case fallocate, readdirplus, rename2, lseek, copyFileRange
    case syncfs = 50
    case tmpfile
}

/// The answer to a request that failed: a number of errno.h, which the guest's kernel hands to its caller.
struct FileError: Error, Equatable {
    let code: Int32
    init(_ code: Int32) { self.code = code }
    /// The failure of the system call just made.
    static var last: FileError { FileError(errno == 0 ? EIO : errno) }

    static let input = FileError(EIO)
    static let invalid = FileError(EINVAL)
    static let stale = FileError(ESTALE)
    static let readOnly = FileError(EROFS)
    static let missing = FileError(ENOENT)
    static let badHandle = FileError(EBADF)
    static let notDirectory = FileError(ENOTDIR)
    static let full = FileError(ENFILE)
    static let noMemory = FileError(ENOMEM)
    static let unsupported = FileError(EOPNOTSUPP)
    static let notImplemented = FileError(ENOSYS)
    static let crossDevice = FileError(EXDEV)
    static let notPermitted = FileError(EPERM)
}

enum FuseLimits {
    /// Data of one READ or WRITE, bytes: 256 pages, the most that a 6.1 guest asks for.
    static let data = 1 << 20
    /// Arguments of any request but WRITE and BATCH_FORGET, and any answer but READ's, bytes: an xattr value of 64 KiB
    /// is the longest.
    static let message = 128 << 10
    /// Seconds that the guest may trust a name or attributes before it asks again.
    static let validity: UInt64 = 1
    static let nameLength = 255
}

/// What INIT agrees on: everything here that the guest also offers.
enum FuseFeatures {
    static let asyncRead: UInt32 = 1 << 0
    static let atomicTruncate: UInt32 = 1 << 3
    static let bigWrites: UInt32 = 1 << 5
    static let doNotMask: UInt32 = 1 << 6
    static let autoInvalidate: UInt32 = 1 << 12
    static let readdirplus: UInt32 = 1 << 13
    static let readdirplusAuto: UInt32 = 1 << 14
    static let asyncDirect: UInt32 = 1 << 15
    static let parallelDirectories: UInt32 = 1 << 18
    static let posixACL: UInt32 = 1 << 20
    static let maxPages: UInt32 = 1 << 22
    static let cacheSymlinks: UInt32 = 1 << 23
    static let submounts: UInt32 = 1 << 27
    static let killPrivilegesV2: UInt32 = 1 << 28
    static let setxattrExtended: UInt32 = 1 << 29
    static let initExtended: UInt32 = 1 << 30

    /// Not POSIX_LOCKS or FLOCK_LOCKS: locks stay in the guest's kernel. Not WRITEBACK_CACHE: the host's side
    /// would see writes late.
    static let wanted: UInt32 =
        asyncRead | atomicTruncate | bigWrites | doNotMask | autoInvalidate | readdirplus | readdirplusAuto
        | asyncDirect | parallelDirectories | posixACL | maxPages | cacheSymlinks | submounts | killPrivilegesV2
        | setxattrExtended | initExtended
}

/// FATTR_*: which fields of SETATTR count.
struct AttributeSet: OptionSet {
    let rawValue: UInt32
    static let mode = AttributeSet(rawValue: 1 << 0)
    static let user = AttributeSet(rawValue: 1 << 1)
    static let group = AttributeSet(rawValue: 1 << 2)
    static let size = AttributeSet(rawValue: 1 << 3)
    static let accessTime = AttributeSet(rawValue: 1 << 4)
    static let modifyTime = AttributeSet(rawValue: 1 << 5)
    static let handle = AttributeSet(rawValue: 1 << 6)
    static let accessTimeNow = AttributeSet(rawValue: 1 << 7)
    static let modifyTimeNow = AttributeSet(rawValue: 1 << 8)
    static let killPrivileges = AttributeSet(rawValue: 1 << 11)
}

enum FuseFlag {
    static let getattrHandle: UInt32 = 1 << 0
    static let writeCache: UInt32 = 1 << 0
    static let writeKillPrivileges: UInt32 = 1 << 2
    static let openKillPrivileges: UInt32 = 1 << 0
    static let fsyncDataOnly: UInt32 = 1 << 0
    static let setxattrKillGroup: UInt32 = 1 << 0
    static let attributeSubmount: UInt32 = 1 << 0
    static let openKeepCache: UInt32 = 1 << 1
    static let openNoFlush: UInt32 = 1 << 5
}

/// Device numbers as FUSE and the kernel's own system calls write them in 32 bits (`new_encode_dev`).
enum DeviceNumber {
    static func encode(major: UInt32, minor: UInt32) -> UInt32 {
        (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)
    }
    /// As a `dev_t` of glibc.
    static func decode(_ number: UInt32) -> dev_t {
        let major = UInt64((number & 0xfff00) >> 8)
        let minor = UInt64((number & 0xff) | ((number >> 12) & 0xfff00))
        return dev_t((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & ~0xff) << 12))
    }
}
