import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import FileService

extension FilesTests {
    /// One file of the host is one node, whichever shares lead to it; what they allow holds for it together.
    @Suite struct Inodes {
        let scratch = ScratchDirectory()
        let guest: FuseGuest

        init() throws {
            guest = try FuseGuest()
            try guest.start()
            for name in ["volume", "volume/sub", "volume/sub/deep", "other"] { scratch.makeDirectory(name) }
            for name in ["volume/file", "volume/sub/inner", "volume/sub/deep/most", "other/own"] {
                scratch.write(name, name)
            }
        }

        private func share(_ name: String, _ path: String, readOnly: Bool = false) throws {
            try guest.share(name, "\(scratch.path)/\(path)", readOnly: readOnly, detached: true)
        }

        private func node(_ path: String) throws -> UInt64 { try guest.walk(path).nodeid }

        private func writeError(_ path: String) throws -> Int32 {
            guest.error(.open, try node(path), guest.openArguments(O_RDWR))
        }

        @Test(arguments: [false, true]) func aFileIsOneNode(partFirst: Bool) throws {
            let shares = [("volume", "volume"), ("part", "volume/sub"), ("single", "volume/file")]
            for (name, path) in partFirst ? shares.reversed() : shares { try share(name, path) }
            for (one, two) in [
                ("volume/sub", "part"), ("volume/sub/inner", "part/inner"), ("volume/sub/deep/most", "part/deep/most"),
                ("volume/file", "single"),
            ] {
                let (first, second) = (try guest.walk(one), try guest.walk(two))
                #expect(first.nodeid == second.nodeid, "\(one)")
                #expect(first.attr.ino == second.attr.ino, "\(one)")
            }
            // The same tree a second time, read-only: the same nodes too.
            try share("volume.ro", "volume", readOnly: true)
            #expect(try node("volume.ro") == node("volume"))
            #expect(try node("volume.ro/sub/inner") == node("part/inner"))
        }

        @Test func oneWritableShareMakesWritable() throws {
            try share("part", "volume/sub", readOnly: true)
            #expect(try writeError("part/inner") == EROFS)
            try share("volume", "volume")
            // The guest knows `inner` by the read-only share alone; the writable one leads to its directory.
            let inner = try node("part/inner")
            #expect(try node("volume/sub") == node("part"))
            let handle = try guest.open(inner, O_RDWR).fh
            #expect(try guest.write(inner, handle, 0, Array("new".utf8)) == 3)
            #expect(try guest.setattr(inner, 1) { $0.mode = 0o600 }.mode & 0o777 == 0o600)
            #expect(guest.error(.setxattr, inner, guest.xattrArguments("user.a", [1])) == 0)
            let part = try node("part")
            #expect(guest.error(.mkdir, part, guest.directoryArguments("made")) == 0)
            #expect(guest.error(.rename2, part, guest.renameArguments("made", part, "moved")) == 0)
            // It goes: what is left is read-only, to who has it open too.
            try guest.removeShare("volume")
            #expect(guest.error(.write, inner, guest.writeArguments(handle, 0, [1])) == EBADF)
            #expect(guest.error(.setattr, inner, guest.setattrArguments(1)) == EROFS)
            #expect(guest.error(.unlink, part, text("inner")) == EROFS)
            #expect(try writeError("part/inner") == EROFS)
            let reading = try guest.open(inner).fh
            #expect(try guest.read(inner, reading, 0, 3) == Array("new".utf8))
            #expect(guest.error(.getattr, part, wire(fuse_getattr_in())) == 0)
        }

        /// By no kind of request, whatever other shares the pod has.
        @Test func readOnlySharesOfAFileStayReadOnly() throws {
            try share("volume", "volume", readOnly: true)
            try share("part", "volume/sub", readOnly: true)
            try share("other", "other")
            let (part, inner, other) = (try node("part"), try node("volume/sub/inner"), try node("other"))
            let reading = try guest.open(inner).fh
            let refused: [(FuseOperation, UInt64, [UInt8])] = [
                (.setattr, inner, guest.setattrArguments(1)), (.setattr, inner, guest.setattrArguments(8)),
                (.setattr, inner, guest.setattrArguments(8 | 64) { $0.fh = reading }),
                (.open, inner, guest.openArguments(O_WRONLY)), (.open, inner, guest.openArguments(O_RDONLY | O_TRUNC)),
                (.create, part, guest.createArguments("inner")), (.create, part, guest.createArguments("new")),
                (.tmpfile, part, guest.createArguments("/")), (.mkdir, part, guest.directoryArguments("d")),
                (.write, inner, guest.writeArguments(reading, 0, [1])),
                (.setxattr, inner, guest.xattrArguments("user.a", [1])), (.removexattr, inner, text("user.a")),
                (.setxattr, inner, guest.xattrArguments("trusted.overlay.opaque", [1])),
                // Into and out of a writable share.
                (.link, other, wire(inner) + text("linked")), (.link, part, wire(try node("other/own")) + text("l")),
                (.rename, part, wire(other) + text("inner") + text("taken")),
                (.rename, other, wire(part) + text("own") + text("given")),
                (.rename2, other, guest.renameArguments("own", part, "inner", 2)),
            ]
            for (operation, node, arguments) in refused {
                #expect(guest.error(operation, node, arguments) == EROFS, "\(operation)")
            }
            // The kernel of the host would refuse it as well: the descriptors are those of read-only mounts.
            let slot = try #require(guest.server.nodes.slot(inner))
            let raw = try guest.server.openForIO(slot, O_RDONLY)
            defer { close(raw) }
            #expect(martlet_fsetxattr(raw, "user.a", "x", 1, 0) == -1 && errno == EROFS)
            #expect(scratch.read("volume/sub/inner") == "volume/sub/inner" && scratch.status("other/taken") == nil)
        }

        /// A file with a name in a read-only share and one in a writable share is writable by whichever was used last.
        @Test func aHardLinkInAWritableShare() throws {
            #expect(Glibc.link("\(scratch.path)/volume/file", "\(scratch.path)/other/link") == 0)
            try share("volume", "volume", readOnly: true)
            try share("other", "other")
            let file = try node("volume/file")
            #expect(try writeError("volume/file") == EROFS)
            #expect(try node("other/link") == file)
            for _ in 0..<2 {
                #expect(guest.error(.open, file, guest.openArguments(O_RDWR)) == 0)
                #expect(try node("volume/file") == file)
            }
            // Gone from the writable share, on the host: only the other name is left.
            #expect(unlink("\(scratch.path)/other/link") == 0)
            guest.server.nodes.request += 1
            while guest.server.nodes.evict() {}
            _ = guest.error(.open, file, guest.openArguments(O_RDWR))
            #expect(try writeError("volume/file") == EROFS)
        }

        /// Each share is a mount of its own on the host, between which rename(2) and link(2) refuse to work.
        @Test func renamesAndLinksBetweenASharesPartAndTheRest() throws {
            try share("part", "volume/sub")
            let deep = try node("part/deep")
            _ = try guest.create(deep, "made")
            try share("volume", "volume")
            let volume = try node("volume")
            #expect(try node("volume/sub/deep") == deep)
            #expect(guest.error(.rename2, volume, guest.renameArguments("file", deep, "moved")) == 0)
            #expect(scratch.read("volume/sub/deep/moved") == "volume/file")
            #expect(guest.error(.rename2, deep, guest.renameArguments("made", volume, "up")) == 0)
            #expect(guest.error(.link, volume, wire(try node("part/inner")) + text("linked")) == 0)
            #expect(scratch.read("volume/linked") == "volume/sub/inner")
            #expect(guest.error(.rename2, volume, guest.renameArguments("up", try node("part"), "inner", 2)) == 0)
        }

        @Test func whatAnotherShareLeadsToOutlivesAShare() throws {
            try share("volume", "volume")
            try share("part", "volume/sub")
            let (file, inner) = (try node("volume/file"), try node("volume/sub/inner"))
            let handle = try guest.open(inner, O_RDWR).fh
            let unlinked = try guest.create(try node("part"), "temporary")
            try guest.send(.unlink, try node("part"), text("temporary"))
            let lost = try guest.open(file).fh
            try guest.removeShare("volume")
            #expect(guest.error(.getattr, file, wire(fuse_getattr_in())) == ESTALE)
            #expect(guest.error(.read, file, guest.readArguments(lost, 0, 9)) == ESTALE)
            #expect(try guest.write(inner, handle, 0, [65]) == 1)
            #expect(try guest.write(unlinked.entry.nodeid, unlinked.handle, 0, [65]) == 1)
            #expect(try guest.attributes(unlinked.entry.nodeid).nlink == 0)
            #expect(try node("part/inner") == inner)
            #expect(try writeError("part/deep/most") == 0)
            #expect(guest.error(.lookup, try node("part"), text("..")) == EINVAL)
            try guest.removeShare("part")
            #expect(guest.error(.getattr, inner, wire(fuse_getattr_in())) == ESTALE)
            #expect(guest.error(.write, inner, guest.writeArguments(handle, 0, [1])) == ESTALE)
        }

        /// The root of one share is removed, or moved, in another one.
        @Test func theRootOfAShareMoves() throws {
            try share("volume", "volume")
            try share("part", "volume/sub/deep")
            let volume = try node("volume")
            let sub = try node("volume/sub")
            let deep = try node("volume/sub/deep")
            #expect(guest.error(.rename2, sub, guest.renameArguments("deep", volume, "moved")) == 0)
            #expect(try node("part") == deep && (try node("volume/moved")) == deep)
            #expect(guest.error(.create, deep, guest.createArguments("new")) == 0)
            for name in ["new", "most"] { try guest.send(.unlink, deep, text(name)) }
            try guest.send(.rmdir, volume, text("moved"))
            #expect(try guest.attributes(deep).mode & S_IFMT == S_IFDIR)
            #expect(guest.error(.create, deep, guest.createArguments("new")) == ENOENT)
        }
    }

    /// What overlayfs in the guest asks of its upper layer.
    @Suite struct Overlay {
        let scratch = ScratchDirectory()
        let guest: FuseGuest
        let root: UInt64

        init() throws {
            guest = try FuseGuest()
            try guest.start()
            try guest.share("data", scratch.path)
            root = try guest.lookup(1, "data").nodeid
        }

        private func hostValue(_ path: String, _ name: String) -> [UInt8]? {
            let file = Glibc.open("\(scratch.path)/\(path)", O_RDONLY)
            defer { close(file) }
            var bytes = [UInt8](repeating: 0, count: 100)
            let count = martlet_fgetxattr(file, name, &bytes, bytes.count)
            return count < 0 ? nil : Array(bytes.prefix(count))
        }

        @Test func itsAttributesAreStoredUnderAnotherName() throws {
            scratch.makeDirectory("directory")
            let directory = try guest.lookup(root, "directory").nodeid
            let (name, stored) = ("trusted.overlay.opaque", "user.martlet.trusted.overlay.opaque")
            try guest.send(.setxattr, directory, guest.xattrArguments(name, Array("y".utf8)))
            try guest.send(.setxattr, directory, guest.xattrArguments("user.own", [1]))
            #expect(hostValue("directory", stored) == Array("y".utf8))
            #expect(hostValue("directory", name) == nil)
            #expect(try guest.send(.getxattr, directory, guest.getxattrArguments(name, 10)) == Array("y".utf8))
            let listed = try guest.send(.listxattr, directory, guest.getxattrArguments("", 1000))
            let names = listed.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
            #expect(names.filter { !$0.hasPrefix("security.") }.sorted() == [name, "user.own"])
            let size = value(try guest.send(.listxattr, directory, guest.getxattrArguments("", 0)), UInt32.self)
            #expect(Int(size) == listed.count)
            // Neither seen nor set under the name that it has here.
            for hidden in [stored, "user.martlet.", "user.martlet.x"] {
                #expect(guest.error(.getxattr, directory, guest.getxattrArguments(hidden, 10)) == ENODATA)
                #expect(guest.error(.setxattr, directory, guest.xattrArguments(hidden, [1])) == EPERM)
                #expect(guest.error(.removexattr, directory, text(hidden)) == EPERM)
            }
            // What the host's own overlayfs has set is the host's.
            let host = Glibc.open("\(scratch.path)/directory", O_RDONLY)
            defer { close(host) }
            #expect(martlet_fsetxattr(host, "trusted.overlay.origin", "host", 4, 0) == 0)
            #expect(
                guest.error(.getxattr, directory, guest.getxattrArguments("trusted.overlay.origin", 10)) == ENODATA)
            #expect(guest.error(.setxattr, directory, guest.xattrArguments("trusted.other", [1])) == EPERM)
            try guest.send(.removexattr, directory, text(name))
            #expect(hostValue("directory", stored) == nil)
            #expect(guest.error(.removexattr, directory, text(name)) == ENODATA)
            let long = "trusted.overlay." + String(repeating: "n", count: 239)
            #expect(guest.error(.setxattr, directory, guest.xattrArguments(long, [1])) == ERANGE)
            symlink("x", scratch.path + "/link")
            let link = try guest.lookup(root, "link").nodeid
            #expect(guest.error(.setxattr, link, guest.xattrArguments(name, [1])) == EPERM)
            #expect(guest.error(.getxattr, link, guest.getxattrArguments(name, 10)) == ENODATA)
        }

        @Test func aFileWithoutAName() throws {
            guest.user = 1000
            guest.group = 100
            scratch.makeDirectory("open", mode: 0o777)
            let directory = try guest.lookup(root, "open").nodeid
            let (file, handle) = try guest.createUnnamed(directory, mode: 0o640)
            #expect(file.attr.uid == 1000 && file.attr.gid == 100 && file.attr.mode == S_IFREG | 0o640)
            #expect(file.attr.nlink == 0)
            try guest.write(file.nodeid, handle, 0, Array("content".utf8))
            #expect(try guest.list(directory).count == 2)
            let linked = value(
                try guest.send(.link, directory, wire(file.nodeid) + text("named")), fuse_entry_out.self)
            #expect(linked.nodeid == file.nodeid && linked.attr.nlink == 1)
            #expect(scratch.read("open/named") == "content")
            try guest.release(file.nodeid, handle)
            #expect(try guest.attributes(file.nodeid).size == 7)
            // One that may not get a name, and one that nobody named.
            let isolated = try guest.createUnnamed(directory, O_RDWR | O_EXCL)
            #expect(guest.error(.link, directory, wire(isolated.entry.nodeid) + text("no")) == ENOENT)
            try guest.release(isolated.entry.nodeid, isolated.handle)
            guest.forget(isolated.entry.nodeid)
            #expect(guest.error(.getattr, isolated.entry.nodeid, wire(fuse_getattr_in())) == ESTALE)
            #expect(guest.error(.tmpfile, directory, guest.createArguments("/", O_RDONLY)) == EINVAL)
            #expect(guest.error(.tmpfile, file.nodeid, guest.createArguments("/")) == ENOTDIR)
        }

        @Test func whiteoutsAreMadeAndListed() throws {
            for name in ["a", "b"] { scratch.write(name, name) }
            #expect(guest.error(.rename2, root, guest.renameArguments("a", root, "c", 4)) == 0)
            #expect(guest.error(.mknod, root, guest.nodeArguments("d", S_IFCHR)) == 0)
            for name in ["a", "d"] {
                let attributes = try guest.lookup(root, name).attr
                #expect(attributes.mode & S_IFMT == S_IFCHR && attributes.rdev == 0, "\(name)")
            }
            for plus in [false, true] {
                let types = try Dictionary(
                    guest.list(root, plus: plus).map { ($0.name, $0.type) }, uniquingKeysWith: { first, _ in first })
                #expect(types["a"] == 2 && types["d"] == 2 && types["b"] == 8, "DT_CHR and DT_REG")
            }
            #expect(guest.error(.rename2, root, guest.renameArguments("d", root, "b", 2)) == 0)
            #expect(try guest.lookup(root, "d").attr.size == 1)
        }

        /// In a file system that is an overlay on the host too.
        @Test func whiteoutsWhereTheHostRefusesThem() throws {
            let host = ScratchDirectory(in: "/dev/shm")
            for name in ["lower", "upper", "work", "merged"] { host.makeDirectory(name) }
            let merged = "\(host.path)/merged"
            let options = "lowerdir=\(host.path)/lower,upperdir=\(host.path)/upper,workdir=\(host.path)/work"
            try #require(mount("overlay", merged, "overlay", 0, options) == 0)
            defer { umount2(merged, Int32(MNT_DETACH)) }
            host.makeDirectory("merged/other")
            for name in ["a", "b", "empty"] { host.write("merged/\(name)", name == "empty" ? "" : name, mode: 0) }
            try guest.share("merged", merged)
            let root = try guest.walk("merged").nodeid
            let other = try guest.walk("merged/other").nodeid
            #expect(guest.error(.mknod, root, guest.nodeArguments("made", S_IFCHR)) == 0)
            #expect(guest.error(.rename2, root, guest.renameArguments("a", root, "moved", 4)) == 0)
            #expect(guest.error(.mknod, root, guest.nodeArguments("kept", S_IFCHR)) == 0)
            let made = try guest.lookup(root, "made").nodeid
            #expect(guest.error(.link, other, wire(made) + text("linked")) == 0)
            #expect(guest.error(.rename2, root, guest.renameArguments("kept", other, "kept")) == 0)
            for (directory, name) in [(root, "made"), (root, "a"), (other, "linked"), (other, "kept")] {
                let entry = try guest.lookup(directory, name)
                #expect(entry.attr.mode & S_IFMT == S_IFCHR && entry.attr.rdev == 0, "\(name)")
                #expect(try guest.attributes(entry.nodeid).mode & S_IFMT == S_IFCHR, "\(name)")
                for plus in [false, true] {
                    let listed = try guest.list(directory, plus: plus).first { $0.name == name }
                    #expect(listed?.type == 2, "\(name): DT_CHR")
                }
            }
            #expect(host.read("merged/moved") == "a")
            for name in ["b", "empty"] {
                #expect(try guest.lookup(root, name).attr.mode & S_IFMT == S_IFREG)
                #expect(try guest.list(root).first { $0.name == name }?.type == 8)
            }
            let listed = try guest.send(.listxattr, root, guest.getxattrArguments("", 1000))
            #expect(!String(decoding: listed, as: UTF8.self).contains("martlet"))
            for (directory, name) in [(root, "made"), (other, "linked")] {
                #expect(guest.error(.unlink, directory, text(name)) == 0)
            }
        }
    }
}
