import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import FileService

extension FilesTests {
    /// Every operation once, on a disk file system and on tmpfs, with buffers cut in several ways.
    @Suite struct Operations {
        @Test func initNegotiates() throws {
            let guest = try FuseGuest()
            let out = try guest.start()
            #expect(out.major == 7 && out.minor == 38)
            #expect(out.max_write == 1 << 20 && out.max_pages == 256)
            #expect(out.flags & (1 << 1) == 0, "POSIX locks stay in the guest")
            #expect(out.flags & (1 << 10) == 0, "flock stays in the guest")
            #expect(out.flags & (1 << 16) == 0, "no write-back cache")
            for bit in [0, 3, 5, 6, 12, 13, 14, 18, 22, 27, 28] { #expect(out.flags & (1 << bit) != 0, "bit \(bit)") }
            var old = fuse_init_in()
            old.major = 7
            old.minor = 30
            #expect(guest.error(.initialize, 0, wire(old)) == EPROTO)
            old.major = 8
            #expect(try value(guest.send(.initialize, 0, wire(old)), fuse_init_out.self).major == 7)
        }

        @Test(arguments: ["/tmp", "/dev/shm"], [[], [1], [7, 3, 64], [40, 8, 4096]])
        func filesAndDirectories(parent: String, cuts: [Int]) throws {
            let scratch = ScratchDirectory(in: parent)
            let guest = try FuseGuest()
            guest.cuts = cuts
            try guest.start()
            try guest.share("data", scratch.path)
            let root = try guest.lookup(1, "data").nodeid

            let sub = try guest.makeDirectory(root, "sub")
            let (file, handle) = try guest.create(sub.nodeid, "file")
            let bytes = (0..<10_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
            #expect(try guest.write(file.nodeid, handle, 5, bytes) == bytes.count)
            #expect(try guest.read(file.nodeid, handle, 0, 20_000) == [0, 0, 0, 0, 0] + bytes)
            #expect(try guest.read(file.nodeid, handle, 10_000, 100) == Array(bytes[9995...]))
            #expect(try guest.read(file.nodeid, handle, 1 << 40, 100).isEmpty)
            #expect(try guest.attributes(file.nodeid).size == 10_005)
            var sync = fuse_fsync_in()
            sync.fh = handle
            try guest.send(.fsync, file.nodeid, wire(sync))
            var flush = fuse_flush_in()
            flush.fh = handle
            // Nothing to do for the server, and the guest need not ask again.
            #expect(guest.error(.flush, file.nodeid, wire(flush)) == ENOSYS)

            var range = fuse_fallocate_in()
            range.fh = handle
            range.offset = 4096
            range.length = 1 << 20
            try guest.send(.fallocate, file.nodeid, wire(range))
            #expect(try guest.attributes(file.nodeid).size == 4096 + 1 << 20)
            range.offset = 0
            range.length = 4096
            range.mode = 3
            try guest.send(.fallocate, file.nodeid, wire(range))
            #expect(try guest.read(file.nodeid, handle, 5, 8) == [UInt8](repeating: 0, count: 8))
            range.mode = 0x20
            #expect(guest.error(.fallocate, file.nodeid, wire(range)) == EOPNOTSUPP)
            var seek = fuse_lseek_in()
            seek.fh = handle
            seek.whence = UInt32(martlet_SEEK_DATA)
            #expect(try value(guest.send(.lseek, file.nodeid, wire(seek)), UInt64.self) == 4096)
            seek.whence = 0
            #expect(guest.error(.lseek, file.nodeid, wire(seek)) == EINVAL)

            let (copy, copyHandle) = try guest.create(sub.nodeid, "copy")
            var copying = fuse_copy_file_range_in()
            copying.fh_in = handle
            copying.off_in = 4096
            copying.nodeid_out = copy.nodeid
            copying.fh_out = copyHandle
            copying.len = 1000
            let copied = try value(guest.send(.copyFileRange, file.nodeid, wire(copying)), fuse_write_out.self).size
            #expect(copied == 1000)
            #expect(
                try guest.read(copy.nodeid, copyHandle, 0, 2000) == guest.read(file.nodeid, handle, 4096, 1000))
            try guest.release(file.nodeid, handle)
            try guest.release(copy.nodeid, copyHandle)

            let link = try value(guest.send(.link, root, wire(file.nodeid) + text("second")), fuse_entry_out.self)
            #expect(link.nodeid == file.nodeid && link.attr.nlink == 2)
            try guest.send(.symlink, root, text("way") + text("sub/file"))
            let way = try guest.lookup(root, "way")
            #expect(way.attr.mode & S_IFMT == S_IFLNK)
            #expect(try guest.send(.readlink, way.nodeid, []) == Array("sub/file".utf8))
            #expect(guest.error(.readlink, file.nodeid, []) == EINVAL)

            try guest.send(.rename, sub.nodeid, wire(root) + text("copy") + text("moved"))
            #expect(scratch.status("moved")?.st_size == 1000)
            #expect(guest.error(.rename2, root, guest.renameArguments("moved", root, "second", 1)) == EEXIST)
            try guest.send(.rename2, root, guest.renameArguments("moved", root, "second", 2))
            #expect(scratch.status("second")?.st_size == 1000)
            #expect(try guest.attributes(file.nodeid).size == 4096 + 1 << 20)
            #expect(try guest.lookup(root, "moved").nodeid == file.nodeid)
            #expect(guest.error(.rename2, root, guest.renameArguments("moved", root, "x", 8)) == EINVAL)

            #expect(guest.error(.rmdir, root, text("sub")) == ENOTEMPTY)
            #expect(guest.error(.unlink, root, text("sub")) == EISDIR)
            #expect(guest.error(.rmdir, root, text("way")) == ENOTDIR)
            try guest.send(.unlink, sub.nodeid, text("file"))
            try guest.send(.rmdir, root, text("sub"))
            #expect(guest.error(.lookup, root, text("sub")) == ENOENT)
            for name in ["way", "second", "moved"] { try guest.send(.unlink, root, text(name)) }
            #expect(try guest.list(root).map(\.name).sorted() == [".", ".."])
            // Unlinked and not forgotten: still there for who knows it.
            #expect(try guest.attributes(file.nodeid).nlink == 0)
        }

        @Test func openFileOutlivesItsName() throws {
            let scratch = ScratchDirectory()
            let guest = try FuseGuest()
            try guest.start()
            try guest.share("data", scratch.path)
            let root = try guest.lookup(1, "data").nodeid
            let (file, handle) = try guest.create(root, "file")
            try guest.send(.unlink, root, text("file"))
            #expect(try guest.write(file.nodeid, handle, 0, [1, 2, 3]) == 3)
            #expect(try guest.attributes(file.nodeid).size == 3)
            #expect(try guest.setattr(file.nodeid, 1 << 3) { $0.size = 1 }.size == 1)
            #expect(try guest.read(file.nodeid, handle, 0, 10) == [1])
            // Moved away by the host: the open file is what the guest means.
            let (other, otherHandle) = try guest.create(root, "other")
            rename("\(scratch.path)/other", "\(scratch.path)/elsewhere")
            #expect(try guest.attributes(other.nodeid).nlink == 1)
            try guest.release(other.nodeid, otherHandle)
            try guest.release(file.nodeid, handle)
        }

        @Test func attributesCanBeSet() throws {
            let scratch = ScratchDirectory()
            scratch.write("file", "0123456789")
            let guest = try FuseGuest()
            try guest.start()
            try guest.share("data", scratch.path)
            let root = try guest.lookup(1, "data").nodeid
            let file = try guest.lookup(root, "file").nodeid
            #expect(try guest.setattr(file, 1) { $0.mode = S_IFREG | 0o4711 }.mode == S_IFREG | 0o4711)
            let owned = try guest.setattr(file, 6) {
                $0.uid = 1234
                $0.gid = 4321
            }
            #expect(owned.uid == 1234 && owned.gid == 4321)
            #expect(owned.mode & 0o7777 == 0o711, "a new owner takes SUID away")
            #expect(try guest.setattr(file, 8) { $0.size = 4 }.size == 4)
            let times = try guest.setattr(file, 0x30) {
                $0.atime = 100
                $0.mtime = UInt64(bitPattern: -5)
                $0.mtimensec = 999_999_999
            }
            #expect(times.atime == 100 && times.mtime == UInt64(bitPattern: -5) && times.mtimensec == 999_999_999)
            let now = try guest.setattr(file, 0x30 | 0x180) { _ in }
            #expect(now.atime > 1_000_000_000 && now.mtime > 1_000_000_000)
            #expect(guest.error(.setattr, root, guest.setattrArguments(8)) == EINVAL, "a directory has no size to set")
            #expect(guest.error(.setattr, file, guest.setattrArguments(8) { $0.size = .max }) == EINVAL)
            // A symbolic link has an owner and times of its own.
            symlink("file", "\(scratch.path)/way")
            let way = try guest.lookup(root, "way").nodeid
            let linked = try guest.setattr(way, 2 | 0x30) {
                $0.uid = 77
                $0.mtime = 9
            }
            #expect(linked.uid == 77 && linked.mtime == 9)
            #expect(guest.error(.setattr, way, guest.setattrArguments(1)) == EOPNOTSUPP)
            let target = scratch.status("file")
            #expect(target?.st_uid == 1234 && target?.st_mtim.tv_sec != 9, "and not its target's")
        }

        /// A device node that a guest makes is one of the host, for whoever finds it there.
        @Test func deviceNodesAreRefused() throws {
            let scratch = ScratchDirectory()
            let guest = try FuseGuest()
            try guest.start()
            try guest.share("data", scratch.path)
            let root = try guest.lookup(1, "data").nodeid
            let nodes: [(UInt32, UInt32)] = [(S_IFCHR, 0x103), (S_IFBLK, 0x801), (S_IFBLK, 0)]
            for (type, device) in nodes {
                #expect(guest.error(.mknod, root, guest.nodeArguments("node", type | 0o666, device: device)) == EPERM)
                #expect(scratch.status("node") == nil)
            }
            #expect(guest.error(.mknod, root, guest.nodeArguments("whiteout", S_IFCHR)) == 0)
            // One that the host has is shown, and never opened.
            try #require(mknod("\(scratch.path)/null", S_IFCHR | 0o666, 0x103) == 0)
            let node = try guest.lookup(root, "null")
            #expect(node.attr.mode & S_IFMT == S_IFCHR && node.attr.rdev == 0x103)
            #expect(guest.error(.open, node.nodeid, guest.openArguments(O_RDONLY)) == ENXIO)
        }

        @Test func specialFilesAreMadeAndNeverOpened() throws {
            let scratch = ScratchDirectory()
            var options = FileServer.Options()
            options.allowsDevices = true
            let guest = try FuseGuest(options)
            try guest.start()
            try guest.share("data", scratch.path)
            let root = try guest.lookup(1, "data").nodeid
            let kinds: [(String, UInt32)] = [
                ("fifo", S_IFIFO), ("socket", S_IFSOCK), ("character", S_IFCHR), ("block", S_IFBLK),
            ]
            for (name, type) in kinds {
                let device: UInt32 = type == S_IFCHR || type == S_IFBLK ? (300 << 8) | 0x12 | (5 << 20) : 0
                let reply = try guest.send(.mknod, root, guest.nodeArguments(name, type | 0o640, device: device))
                let entry = value(reply, fuse_entry_out.self)
                #expect(entry.attr.mode == type | 0o640)
                #expect(entry.attr.rdev == device, "\(name)")
                for flags in [O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_TRUNC] {
                    #expect(guest.error(.open, entry.nodeid, guest.openArguments(flags)) == ENXIO)
                }
                #expect(guest.error(.opendir, entry.nodeid, guest.openArguments(O_RDONLY)) == ENOTDIR)
                #expect(guest.error(.setattr, entry.nodeid, guest.setattrArguments(8)) == EINVAL)
                #expect(guest.error(.getxattr, entry.nodeid, guest.getxattrArguments("user.x", 10)) == ENODATA)
                #expect(guest.error(.setxattr, entry.nodeid, guest.xattrArguments("user.x", [1])) == EPERM)
                #expect(try guest.setattr(entry.nodeid, 1) { $0.mode = 0o600 }.mode == type | 0o600)
                #expect(
                    guest.error(.create, root, guest.createArguments(name)) == ESTALE, "no opening by CREATE either")
            }
            #expect(guest.error(.mknod, root, guest.nodeArguments("dir", S_IFDIR | 0o755)) == EINVAL)
            let kindsSeen = try guest.list(root).filter { $0.name != "." && $0.name != ".." }
            #expect(Set(kindsSeen.map { $0.type << 12 }) == [S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK])
        }

        @Test func directoriesOfAnySizeAreRead() throws {
            let scratch = ScratchDirectory()
            let names = (0..<700).map { "entry-\($0)-" + String(repeating: "x", count: $0 % 200) }
            for name in names { scratch.write(name, name) }
            let guest = try FuseGuest()
            try guest.start()
            try guest.share("data", scratch.path)
            let root = try guest.lookup(1, "data").nodeid
            for (plus, size) in [(false, 4096), (true, 4096), (false, 512), (true, 600), (true, 100_000)] {
                let list = try guest.list(root, plus: plus, size: size)
                #expect(list.count == 702)
                #expect(Set(list.map(\.name)) == Set(names + [".", ".."]))
                for dirent in list where plus {
                    guard let entry = dirent.entry else { continue }
                    if dirent.name == "." || dirent.name == ".." {
                        #expect(entry.nodeid == 0)
                    } else {
                        #expect(entry.attr.size == UInt64(dirent.name.utf8.count) && entry.attr.ino == dirent.inode)
                        guest.forget(entry.nodeid)
                    }
                }
            }
            #expect(guest.server.nodes.count == 3, "all forgotten but root, file system and share")
            let handle = value(try guest.send(.opendir, root, guest.openArguments(0)), fuse_open_out.self).fh
            #expect(guest.error(.readdir, root, guest.readArguments(handle, 0, 16)) == EINVAL)
            #expect(guest.error(.readdir, root, guest.readArguments(handle, .max - 1, 4096)) == EINVAL)
        }

        @Test func extendedAttributes() throws {
            let scratch = ScratchDirectory()
            scratch.write("file", "x")
            let guest = try FuseGuest()
            try guest.start()
            try guest.share("data", scratch.path)
            let root = try guest.lookup(1, "data").nodeid
            let file = try guest.lookup(root, "file").nodeid
            try guest.send(.setxattr, file, guest.xattrArguments("user.a", [1, 2, 3]))
            try guest.send(.setxattr, file, guest.xattrArguments("user.b", []))
            #expect(try guest.send(.getxattr, file, guest.getxattrArguments("user.a", 100)) == [1, 2, 3])
            #expect(try guest.send(.getxattr, file, guest.getxattrArguments("user.b", 100)).isEmpty)
            let size = try value(guest.send(.getxattr, file, guest.getxattrArguments("user.a", 0)), UInt32.self)
            #expect(size == 3)
            #expect(guest.error(.getxattr, file, guest.getxattrArguments("user.a", 2)) == ERANGE)
            #expect(guest.error(.getxattr, file, guest.getxattrArguments("user.none", 2)) == ENODATA)
            setOnHost(scratch.path + "/file", "trusted.host", "secret")
            #expect(
                try guest.send(.listxattr, file, guest.getxattrArguments("", 1000)) == text("user.a") + text("user.b"))
            #expect(guest.error(.getxattr, file, guest.getxattrArguments("trusted.host", 100)) == ENODATA)
            #expect(guest.error(.setxattr, file, guest.xattrArguments("trusted.x", [1])) == EPERM)
            #expect(guest.error(.removexattr, file, text("trusted.host")) == EPERM)
            #expect(guest.error(.setxattr, file, guest.xattrArguments("security.selinux", [1])) == EOPNOTSUPP)
            try guest.send(.removexattr, file, text("user.a"))
            #expect(guest.error(.removexattr, file, text("user.a")) == ENODATA)
            let capability: [UInt8] = [1, 0, 0, 2, 0, 4, 0, 0] + [UInt8](repeating: 0, count: 12)
            try guest.send(.setxattr, file, guest.xattrArguments("security.capability", capability))
            #expect(try guest.send(.getxattr, file, guest.getxattrArguments("security.capability", 64)) == capability)
            let handle = try guest.open(file, O_WRONLY).fh
            try guest.write(file, handle, 0, [1])
            #expect(
                guest.error(.getxattr, file, guest.getxattrArguments("security.capability", 64)) == ENODATA,
                "a write takes capabilities away")
        }

        private func setOnHost(_ path: String, _ name: String, _ value: String) {
            let file = Glibc.open(path, O_RDONLY)
            _ = martlet_fsetxattr(file, name, value, value.utf8.count, 0)
            close(file)
        }

        @Test func appendAndWriteBack() throws {
            let scratch = ScratchDirectory()
            scratch.write("log", "one\n")
            let guest = try FuseGuest()
            try guest.start()
            try guest.share("data", scratch.path)
            let file = try guest.walk("data/log").nodeid
            let handle = try guest.open(file, O_RDWR | O_APPEND).fh
            scratch.write("log", "one\ntwo\n")
            // The guest still thinks that the file ends at 4.
            try guest.write(file, handle, 4, Array("three\n".utf8), openFlags: O_APPEND)
            #expect(scratch.read("log") == "one\ntwo\nthree\n")
            // A page written back from a mapping goes where it belongs.
            try guest.write(file, handle, 0, Array("ONE".utf8), flags: 1, openFlags: O_APPEND)
            #expect(scratch.read("log") == "ONE\ntwo\nthree\n")
        }

        @Test func statfsAccessAndTheRest() throws {
            let scratch = ScratchDirectory()
            scratch.write("file", "x", mode: 0o640)
            let guest = try FuseGuest()
            try guest.start()
            try guest.share("data", scratch.path)
            let file = try guest.walk("data/file").nodeid
            let status = try value(guest.send(.statfs, file, []), fuse_statfs_out.self)
            #expect(status.st.blocks > 0 && status.st.namelen == 255)
            #expect(try guest.send(.statfs, 1, []).count == 80)
            #expect(guest.error(.access, file, wire(UInt64(R_OK))) == 0)
            guest.user = 5
            guest.group = 5
            #expect(guest.error(.access, file, wire(UInt64(R_OK))) == EACCES)
            guest.user = 0
            #expect(guest.error(.ioctl, file, [UInt8](repeating: 0, count: 32)) == ENOTTY)
            #expect(guest.error(.syncfs, file, wire(UInt64(0))) == 0)
            #expect(guest.raw(guest.request(31, file, []), room: 16).used == 16)
            let unknown = guest.raw(guest.request(9999, file, []), room: 64)
            #expect(value(unknown.reply, fuse_out_header.self).error == -ENOSYS)
            #expect(guest.raw(guest.request(36, 0, wire(UInt64(1))), room: 64).used == 0, "INTERRUPT has no answer")
            #expect(guest.error(.destroy, 0, []) == 0)
            #expect(guest.error(.getattr, file, wire(fuse_getattr_in())) == ESTALE)
        }
    }
}
