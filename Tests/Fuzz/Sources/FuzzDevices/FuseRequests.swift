import CLinux
import FuzzSupport
import Glibc

@testable import FileService

/// Requests whose fields are of the right form, filled from an input.
enum FuseRequests {
    /// Every request but INIT and DESTROY, which begin and end each execution.
    static let operations: [FuseOperation] =
        (1...51).compactMap { FuseOperation(rawValue: $0) }.filter {
            $0 != .initialize && $0 != .destroy
        } + [.lookup, .lookup, .open, .create, .write, .read, .forget, .readdirplus, .rename2, .setattr]

    private static let names: [[UInt8]] =
        [
            "file", "directory", "a", "b", "c", "out", "up", ".", "..", "", "a/b", "/etc", "../secret", "secret",
            String(repeating: "n", count: 255), String(repeating: "n", count: 256), "directory/..",
        ].map { Array($0.utf8) } + [[0xff, 0xfe], [0x61, 0, 0x62]]

    static func initialize(_ input: inout Input) -> [UInt8] {
        var request = fuse_init_in()
        request.major = 7
        request.minor = input.byte() > 4 ? 38 : UInt32(input.byte())
        request.max_readahead = 128 << 10
        request.flags = input.byte() > 16 ? .max >> 1 : input.number()
        return wire(request)
    }

    /// The arguments of a request.
    static func arguments(
        _ operation: FuseOperation, handle: UInt64, nodes: [UInt64], _ input: inout Input
    ) -> [UInt8] {
        switch operation {
        case .lookup, .unlink, .rmdir, .removexattr: return name(&input)
        case .symlink: return name(&input) + target(&input)
        case .forget: return wire(input.byte() > 200 ? input.number64() : 1)
        case .batchForget:
            let count = UInt32(input.byte() % 8)
            let entries = (0..<count).flatMap { _ in wire(input.pick(nodes)) + wire(UInt64(input.byte() % 4)) }
            return wire(input.byte() > 240 ? input.number() : count) + wire(UInt32(0)) + entries
        case .mknod:
            var request = fuse_mknod_in()
            request.mode = mode(&input)
            request.rdev = UInt32(input.word())
            request.umask = UInt32(input.byte())
            return wire(request) + name(&input)
        case .mkdir:
            var request = fuse_mkdir_in()
            request.mode = mode(&input)
            request.umask = UInt32(input.byte())
            return wire(request) + name(&input)
        case .create, .tmpfile:
            var request = fuse_create_in()
            request.flags = flags(&input)
            request.mode = mode(&input)
            request.umask = UInt32(input.byte())
            return wire(request) + name(&input)
        case .link: return wire(input.pick(nodes)) + name(&input)
        case .rename: return wire(input.pick(nodes)) + name(&input) + name(&input)
        case .rename2:
            return wire(input.pick(nodes)) + wire(UInt64(input.byte() % 8)) + name(&input) + name(&input)
        default: return ofFile(operation, handle, &input)
        }
    }

    private static func ofFile(_ operation: FuseOperation, _ handle: UInt64, _ input: inout Input) -> [UInt8] {
        switch operation {
        case .open, .opendir: return wire(flags(&input)) + wire(UInt32(input.byte() & 1))
        case .read, .readdir, .readdirplus:
            var request = fuse_read_in()
            request.fh = handle
            request.offset = input.number64()
            request.size = UInt32(truncatingIfNeeded: input.number64())
            return wire(request)
        case .write:
            var request = fuse_write_in()
            request.fh = handle
            request.offset = input.number64()
            let data = [UInt8](repeating: 0x55, count: Int(input.word() % 6000))
            request.size = input.byte() > 8 ? UInt32(data.count) : input.number()
            request.write_flags = UInt32(input.byte() % 8)
            request.flags = flags(&input)
            return wire(request) + data
        case .setattr:
            var request = fuse_setattr_in()
            request.valid = UInt32(input.word())
            request.fh = handle
            request.size = input.number64()
            request.mode = mode(&input)
            request.uid = UInt32(truncatingIfNeeded: input.number64())
            request.gid = UInt32(truncatingIfNeeded: input.number64())
            request.atime = input.number64()
            request.atimensec = UInt32(truncatingIfNeeded: input.number64())
            return wire(request)
        case .setxattr:
            let value = input.take(Int(input.byte()))
            let size = input.byte() > 8 ? UInt32(value.count) : input.number()
            let attribute = attribute(&input)
            return wire(size) + wire(UInt32(input.byte() % 4)) + wire(UInt64(0)) + attribute + value
        case .getxattr: return wire(UInt32(input.word())) + wire(UInt32(0)) + attribute(&input)
        case .listxattr: return wire(UInt32(input.word())) + wire(UInt32(0))
        case .getattr: return wire(UInt32(input.byte() & 1)) + wire(UInt32(0)) + wire(handle)
        case .fallocate:
            return wire(handle) + wire(input.number64()) + wire(input.number64()) + wire(UInt32(input.byte() % 64))
                + wire(UInt32(0))
        case .lseek: return wire(handle) + wire(input.number64()) + wire(UInt32(input.byte() % 8)) + wire(UInt32(0))
        case .copyFileRange:
            return wire(handle) + wire(input.number64()) + wire(input.number64()) + wire(handle)
                + wire(input.number64()) + wire(input.number64()) + wire(UInt64(input.byte() & 1))
        default: return wire(handle) + wire(input.number64()) + wire(input.number64())
        }
    }

    private static func name(_ input: inout Input) -> [UInt8] {
        let choice = input.byte()
        if choice < 240 { return names[Int(choice) % names.count] + [0] }
        return input.take(Int(input.byte() % 64)) + (choice == 255 ? [] : [0])
    }

    private static func target(_ input: inout Input) -> [UInt8] {
        Array(input.pick(["../secret", "/etc/passwd", "file", "../../..", "out", ""]).utf8) + [0]
    }

    private static func attribute(_ input: inout Input) -> [UInt8] {
        let names = [
            "user.a", "user.b", "trusted.overlay.opaque", "security.capability", "system.posix_acl_access",
            "user.martlet.x", "", String(repeating: "x", count: 300),
        ]
        return Array(input.pick(names).utf8) + [0]
    }

    private static func mode(_ input: inout Input) -> UInt32 {
        input.pick([S_IFREG, S_IFDIR, S_IFIFO, S_IFCHR, S_IFBLK, S_IFSOCK, S_IFLNK, 0]) | UInt32(input.word() & 0o7777)
    }

    private static func flags(_ input: inout Input) -> UInt32 {
        let known = [O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_TRUNC, O_RDWR | O_APPEND, O_RDWR | O_CREAT | O_EXCL]
        return input.byte() > 16 ? UInt32(bitPattern: input.pick(known)) : input.number()
    }
}
