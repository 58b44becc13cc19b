import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import FileService

extension FilesTests {
    /// Shares, submounts, read-only, and far more files than descriptors.
    @Suite struct Shares {
        /// Mounts a fresh tmpfs on a directory.
        private func mountTmpfs(_ path: String) { #expect(mount("none", path, "tmpfs", 0, nil) == 0) }

        @Test func inodeNumbersAreUniquePerDevice() throws {
            let scratch = ScratchDirectory()
            for name in ["a", "b"] {
                scratch.makeDirectory(name)
                mountTmpfs("\(scratch.path)/\(name)")
                scratch.write("\(name)/file", name)
            }
            scratch.makeDirectory("a/nested")
            scratch.write("a/bound", "")
            scratch.write("a/single", "single")
            mountTmpfs("\(scratch.path)/a/nested")
            scratch.write("a/nested/file", "nested")
            #expect(mount("\(scratch.path)/b/file", "\(scratch.path)/a/bound", nil, 4096, nil) == 0)
            defer {
                for name in ["a/bound", "a/nested", "a", "b"] { umount2("\(scratch.path)/\(name)", Int32(MNT_DETACH)) }
            }
            let inode = scratch.status("a/file")?.st_ino
            #expect(
                inode != nil && inode == scratch.status("b/file")?.st_ino
                    && inode == scratch.status("a/nested/file")?.st_ino)

            let guest = try FuseGuest()
            try guest.start()
            try guest.share("a", scratch.path + "/a")
            try guest.share("b", scratch.path + "/b", readOnly: true)
            try guest.share("single", scratch.path + "/a/single")
            // As the guest's kernel gives device numbers: one to each submount.
            var seen = ["root \(FileServer.rootInode)": "the root"]
            func visit(_ node: UInt64, _ device: String, _ path: String) throws {
                for dirent in try guest.list(node, plus: true) where dirent.name != "." && dirent.name != ".." {
                    let entry = try guest.lookup(node, dirent.name)
                    #expect(entry.nodeid == dirent.entry?.nodeid && entry.attr.flags == dirent.entry?.attr.flags)
                    let child = "\(path)/\(dirent.name)"
                    // A submount is seen twice: as the entry that it hides, and as the root of its device.
                    let own = entry.attr.flags & FuseFlag.attributeSubmount != 0 ? child : device
                    let numbers =
                        own == device ? [entry.attr.ino] : [entry.attr.ino, try guest.attributes(entry.nodeid).ino]
                    for (place, number) in zip([device, own], numbers) {
                        let key = "\(place) \(number)"
                        // The one file with two names.
                        if seen[key] == "\(first)/a/single" || child == "\(first)/single" { continue }
                        #expect(seen[key] == nil, "\(child) has the number of \(seen[key] ?? "")")
                        seen[key] = child
                    }
                    if entry.attr.mode & S_IFMT == S_IFDIR { try visit(entry.nodeid, own, child) }
                }
            }
            let first = "/\(guest.fileSystems["a"] ?? "")"
            let second = "/\(guest.fileSystems["b"] ?? "")"
            try visit(1, "root", "")
            #expect(
                Set(seen.values) == [
                    "the root", first, "\(first)/a", "\(first)/a/file", "\(first)/a/nested", "\(first)/a/nested/file",
                    "\(first)/a/bound", "\(first)/a/single", second, "\(second)/b", "\(second)/b/file",
                ])
            #expect(try guest.walk(first).attr.flags == 0, "the first file system has the root's device")
            #expect(try guest.walk(second).attr.flags == FuseFlag.attributeSubmount)
            for path in ["a", "a/nested", "a/file", "single", "a/bound", "b", "b/file"] {
                #expect(try guest.walk(path).attr.flags == 0, "\(path)")
            }
            #expect(inode.map { UInt64($0) } == (try guest.walk("b/file").attr.ino))
            let single = try guest.walk("single")
            #expect(single.nodeid == (try guest.walk("a/single").nodeid))
            #expect(try guest.read(single.nodeid, guest.open(single.nodeid).fh, 0, 100) == Array("single".utf8))
            #expect(guest.error(.link, try guest.walk("b").nodeid, wire(single.nodeid) + text("x")) == EROFS)

            // A guest without submounts: one device, so the numbers alone are unique.
            try guest.start(flags: FuseFeatures.wanted & ~FuseFeatures.submounts)
            var numbers: Set<UInt64> = []
            for path in ["a", "a/file", "a/nested", "a/nested/file", "a/bound", "a/single", "b"] {
                let entry = try guest.walk(path)
                #expect(entry.attr.flags == 0 && numbers.insert(entry.attr.ino).inserted, "\(path)")
            }
            #expect(try guest.walk(second).attr.flags == 0)
        }

        /// What lies in the file system of the first directory shared has the root's device number, also in other shares;
        /// the numbers are the host's, and unique all the same.
        @Test func theHomeIsNoSubmount() throws {
            let scratch = ScratchDirectory()
            for name in ["home", "home/sub", "home/mounted", "other", "again"] { scratch.makeDirectory(name) }
            for name in ["home/mounted", "other"] { mountTmpfs("\(scratch.path)/\(name)") }
            for name in ["home/sub", "home/mounted", "other", "again"] { scratch.write("\(name)/file", name) }
            defer { for name in ["home/mounted", "other"] { umount2("\(scratch.path)/\(name)", Int32(MNT_DETACH)) } }
            let guest = try FuseGuest()
            try guest.share("home", scratch.path + "/home")
            try guest.share("other", scratch.path + "/other")
            try guest.share("again", scratch.path + "/again", readOnly: true)
            try guest.share("single", scratch.path + "/again/file")
            let home = guest.fileSystems["home"] ?? ""
            let other = guest.fileSystems["other"] ?? ""
            // Also when the guest boots anew.
            for _ in 0..<2 {
                try guest.start()
                for path in ["home", "home/sub", "home/sub/file", "again", "again/file"] {
                    let entry = try guest.walk(path)
                    #expect(entry.attr.flags == 0, "\(path)")
                    #expect(entry.attr.ino == scratch.status(path).map { UInt64($0.st_ino) }, "\(path)")
                    #expect(try guest.attributes(entry.nodeid).ino == entry.attr.ino)
                }
                #expect(try guest.walk(home).attr.flags == 0)
                #expect(try guest.walk(other).attr.flags == FuseFlag.attributeSubmount)
                #expect(try guest.walk("other/file").attr.ino == scratch.status("other/file").map { UInt64($0.st_ino) })
                // In the root's device: each number once, and readdir(3) shows the same.
                let paths = [home, other, "home", "home/sub", "home/sub/file", "home/mounted", "again", "again/file"]
                var numbers = try Set(paths.map { try guest.walk($0).attr.ino })
                #expect(numbers.insert(try guest.attributes(1).ino).inserted && numbers.count == paths.count + 1)
                #expect(try guest.walk("single").nodeid == guest.walk("again/file").nodeid, "one file is one node")
                for directory in [1, try guest.walk(home).nodeid, try guest.walk(other).nodeid] {
                    for dirent in try guest.list(directory) where dirent.name != "." && dirent.name != ".." {
                        let entry = value(try guest.send(.lookup, directory, text(dirent.name)), fuse_entry_out.self)
                        #expect(dirent.inode == entry.attr.ino, "\(dirent.name)")
                    }
                }
                for directory in [home, other] {
                    let node = try guest.walk(directory).nodeid
                    #expect(guest.error(.syncfs, node, wire(UInt64(0))) == 0)
                    let status = value(try guest.send(.statfs, node, []), fuse_statfs_out.self)
                    #expect(status.st.blocks > 0, "the directory of a file system stands for it")
                }
                #expect(guest.error(.syncfs, 1, wire(UInt64(0))) == 0)
            }
            // Without submounts there is one device for all.
            try guest.start(flags: FuseFeatures.wanted & ~FuseFeatures.submounts)
            let all = ["home", "home/sub", "home/mounted", "other", "other/file", "again", "again/file", "single"]
            #expect(try Set(all.map { try guest.walk($0).attr.ino }).count == all.count - 1, "again/file is single")
            for path in all { #expect(try guest.walk(path).attr.flags == 0, "\(path)") }
        }

        @Test func sharesComeAndGo() throws {
            let scratch = ScratchDirectory()
            for name in ["a", "b"] {
                scratch.makeDirectory(name)
                scratch.write("\(name)/file", name)
            }
            let before = openDescriptors()
            let guest = try FuseGuest()
            try guest.start()
            #expect(try guest.list(1).map(\.name) == [".", ".."])
            try guest.share("a", scratch.path + "/a")
            try guest.share("b", scratch.path + "/b")
            #expect(throws: SystemError.self) { try guest.share("a", scratch.path + "/b") }
            for name in ["", ".", "..", "x/y", "a\0b", String(repeating: "n", count: 256)] {
                #expect(throws: SystemError.self) { try guest.share(name, scratch.path) }
            }
            let fileSystem = guest.fileSystems["a"] ?? ""
            #expect(try guest.list(1, plus: true).map(\.name) == [".", "..", fileSystem])
            let top = try guest.walk(fileSystem).nodeid
            #expect(try guest.list(top, plus: true).map(\.name) == [".", "..", "a", "b"])
            #expect(try guest.list(top, plus: true, size: 200).map(\.name) == [".", "..", "a", "b"])
            // What the name of a share means may change at any time.
            let validities = try ["\(fileSystem)", "a", "a/file"].map { try guest.walk($0).entry_valid }
            #expect(validities == [0, 0, FuseLimits.validity])
            let file = try guest.walk("a/file").nodeid
            let directory = try guest.walk("a").nodeid
            let handle = try guest.open(file, O_RDWR).fh
            let listing = value(try guest.send(.opendir, directory, guest.openArguments(0)), fuse_open_out.self).fh
            let other = try guest.walk("b/file").nodeid
            let otherHandle = try guest.open(other).fh

            try guest.removeShare("a")
            #expect(throws: SystemError.self) { try guest.removeShare("a") }
            #expect(guest.error(.lookup, top, text("a")) == ENOENT)
            let byHandle: Set<FuseOperation> = [.release, .releasedir, .flush]
            for (operation, arguments) in Hostile().everyRequest(guest, handle: handle) where operation != .ioctl {
                let expected = byHandle.contains(operation) ? EBADF : ESTALE
                #expect(guest.error(operation, file, arguments) == expected, "\(operation)")
            }
            #expect(guest.error(.readdir, directory, guest.readArguments(listing, 0, 4096)) == ESTALE)
            #expect(try guest.read(other, otherHandle, 0, 10) == Array("b".utf8), "the other share goes on")
            // Of the same name, and another share for all that.
            try guest.share("a", scratch.path + "/b")
            #expect(try guest.walk("a/file").nodeid != file)
            #expect(guest.error(.getattr, file, wire(fuse_getattr_in())) == ESTALE)
            guest.forget(file, 2)
            guest.forget(directory, 6)
            try guest.removeShare("a")
            try guest.removeShare("b")
            #expect(openDescriptors() == before + 1, "only procfs is open still")
            guest.forget(other)
            #expect(guest.error(.destroy, 0, []) == 0)
            #expect(guest.server.nodes.count == 1 && guest.server.handles.count == 0)
        }

        @Test func readOnlySharesAreNotChanged() throws {
            let scene = try Hostile.Scene(readOnly: true)
            let guest = scene.guest
            func snapshot() -> [String] {
                ["", "/file", "/directory"].map { path in
                    guard let s = scene.scratch.status("share" + path) else { return "gone" }
                    return "\(s.st_mode) \(s.st_uid) \(s.st_size) \(s.st_mtim) \(s.st_ctim) \(s.st_nlink)"
                }
            }
            let before = snapshot()
            let file = try guest.open(scene.file).fh
            var range = fuse_fallocate_in()
            range.fh = file
            range.length = 100
            var copy = fuse_copy_file_range_in()
            copy.fh_in = file
            copy.fh_out = file
            copy.nodeid_out = scene.file
            copy.len = 3
            var refused: [(FuseOperation, UInt64, [UInt8])] = []
            for bit in 0..<12 where bit != 6 && bit != 9 {
                refused.append((.setattr, scene.file, guest.setattrArguments(1 << UInt32(bit))))
            }
            refused += [
                (.symlink, scene.root, text("a") + text("b")),
                (.mknod, scene.root, guest.nodeArguments("m", S_IFREG | 0o600)),
                (.mknod, scene.root, guest.nodeArguments("m", S_IFCHR | 0o600, device: 0x105)),
                (.mkdir, scene.root, guest.directoryArguments("d")), (.unlink, scene.root, text("file")),
                (.rmdir, scene.root, text("directory")), (.link, scene.root, wire(scene.file) + text("l")),
                (.rename, scene.root, wire(scene.root) + text("file") + text("f")),
                (.rename2, scene.root, guest.renameArguments("file", scene.directory, "f", 0)),
                (.rename2, scene.root, guest.renameArguments("file", scene.root, "directory", 2)),
                (.create, scene.root, guest.createArguments("c")), (.create, scene.root, guest.createArguments("file")),
                (.open, scene.file, guest.openArguments(O_WRONLY)), (.open, scene.file, guest.openArguments(O_RDWR)),
                (.open, scene.file, guest.openArguments(O_RDONLY | O_TRUNC)),
                (.write, scene.file, guest.writeArguments(file, 0, [1])),
                (.write, scene.file, guest.writeArguments(file, 0, [1], openFlags: O_APPEND)),
                (.setxattr, scene.file, guest.xattrArguments("user.a", [1])),
                (.removexattr, scene.file, text("user.a")),
                (.setxattr, scene.file, guest.xattrArguments("system.posix_acl_access", [2, 0, 0, 0])),
                (.fallocate, scene.file, wire(range)), (.copyFileRange, scene.file, wire(copy)),
                (.access, scene.file, wire(UInt64(W_OK))),
            ]
            for (operation, node, arguments) in refused {
                #expect(guest.error(operation, node, arguments) == EROFS, "\(operation)")
            }
            // The synthetic root likewise.
            for (operation, node, arguments) in refused where node == scene.root && operation != .open {
                #expect(guest.error(operation, 1, arguments) == EROFS, "\(operation) in the root")
            }
            #expect(snapshot() == before)
            #expect(try guest.read(scene.file, file, 0, 100) == Array("inside".utf8))
            #expect(try guest.list(scene.root).count == 4)
        }

        @Test func moreFilesThanDescriptors() throws {
            let scratch = ScratchDirectory(in: "/dev/shm")
            var options = FileServer.Options()
            options.descriptorLimit = 64
            let guest = try FuseGuest(options)
            try guest.start()
            try guest.share("data", scratch.path)
            let before = openDescriptors()
            let root = try guest.lookup(1, "data").nodeid
            var directories = [root]
            var files: [(UInt64, String)] = []
            for level in 0..<40 {
                let made = try guest.makeDirectory(directories[level], "level")
                directories.append(made.nodeid)
                for index in 0..<20 {
                    let (file, handle) = try guest.create(made.nodeid, "f\(index)")
                    try guest.write(file.nodeid, handle, 0, Array("\(level)-\(index)".utf8))
                    try guest.release(file.nodeid, handle)
                    files.append((file.nodeid, "\(level)-\(index)"))
                }
            }
            func check(_ files: some Sequence<(UInt64, String)>) throws {
                for (node, content) in files {
                    #expect(try guest.attributes(node).size == UInt64(content.utf8.count))
                    let handle = try guest.open(node).fh
                    #expect(try guest.read(node, handle, 0, 100) == Array(content.utf8))
                    try guest.release(node, handle)
                }
                #expect(openDescriptors() - before <= 64)
            }
            try check(files.reversed())
            // What was found by its way must be found after the way has changed, by the guest's own doing.
            try guest.send(.rename2, directories[3], guest.renameArguments("level", root, "moved"))
            try check(files.reversed())
            try guest.send(.rename2, root, guest.renameArguments("moved", directories[1], "level", 2))
            try check(stride(from: 0, to: files.count, by: 7).map { files[$0] })
            // By the host's: the guest asks anew and finds the same file again.
            let (lost, content) = files[3]
            rename("\(scratch.path)/level/f3", "\(scratch.path)/kept")
            try check(files[60..<160])
            #expect(guest.error(.getattr, lost, wire(fuse_getattr_in())) == ESTALE)
            #expect(try guest.lookup(root, "kept").nodeid == lost)
            try check([(lost, content)])
            // Unlinked by the guest but not forgotten: as long as there is room for them.
            for index in 0..<10 {
                try guest.send(.unlink, try guest.lookup(root, "level").nodeid, text("f\(index + 10)"))
            }
            try check(files[10..<20])
            for (node, _) in files { guest.forget(node, .max) }
            for node in directories.reversed() { guest.forget(node, .max) }
            #expect(guest.server.nodes.count == 3)
            #expect(openDescriptors() == before)
        }

        @Test func limitsAreErrors() throws {
            let scratch = ScratchDirectory()
            for index in 0..<200 { scratch.write("f\(index)", "x") }
            var options = FileServer.Options()
            options.descriptorLimit = 64
            options.maximumNodes = 100
            let guest = try FuseGuest(options)
            try guest.start()
            try guest.share("data", scratch.path)
            let root = try guest.lookup(1, "data").nodeid
            let codes = (0..<200).map { guest.error(.lookup, root, text("f\($0)")) }
            #expect(codes.filter { $0 == 0 }.count == 97 && codes.last == ENFILE)
            let node = try guest.lookup(root, "f1").nodeid
            let handles = (0..<100).map { _ in guest.error(.open, node, guest.openArguments(O_RDONLY)) }
            #expect(handles.contains(0) && handles.last == ENFILE)
            #expect(guest.error(.create, root, guest.createArguments("new")) == ENFILE)
            #expect(scratch.status("new") == nil, "refused before it was made")
            // The listing goes on, with plain entries where no number is to be had.
            try guest.send(.destroy, 0, [])
            let list = try guest.list(try guest.lookup(1, "data").nodeid, plus: true)
            #expect(list.count == 202 && list.contains { $0.entry?.nodeid == 0 && $0.name.hasPrefix("f") })
        }

        @Test func deepTrees() throws {
            let scratch = ScratchDirectory(in: "/dev/shm")
            var options = FileServer.Options()
            options.descriptorLimit = 64
            let guest = try FuseGuest(options)
            try guest.start()
            try guest.share("data", scratch.path)
            var nodes = [try guest.lookup(1, "data").nodeid]
            for _ in 0..<1000 { nodes.append(try guest.makeDirectory(nodes[nodes.count - 1], "d").nodeid) }
            // The directory with the deepest child known only, forgotten last.
            for node in nodes.dropLast() { guest.forget(node, .max) }
            let deepest = nodes[nodes.count - 1]
            #expect(try guest.attributes(deepest).mode & S_IFMT == S_IFDIR)
            #expect(guest.server.nodes.count == nodes.count + 2)
            guest.forget(deepest, .max)
            #expect(guest.server.nodes.count == 3)
            // Leave it empty for the clean-up, which recurses.
            var parent = try guest.lookup(1, "data").nodeid
            var chain = [parent]
            for _ in 0..<999 {
                parent = try guest.lookup(parent, "d").nodeid
                chain.append(parent)
            }
            for node in chain.reversed() { try guest.send(.rmdir, node, text("d")) }
        }

        @Test func movedIntoACircle() throws {
            let scratch = ScratchDirectory()
            scratch.makeDirectory("a")
            scratch.makeDirectory("a/b")
            let guest = try FuseGuest()
            try guest.start()
            try guest.share("data", scratch.path)
            let root = try guest.lookup(1, "data").nodeid
            let a = try guest.lookup(root, "a").nodeid
            let b = try guest.lookup(a, "b").nodeid
            rename(scratch.path + "/a/b", scratch.path + "/b")
            rename(scratch.path + "/a", scratch.path + "/b/a")
            // The guest thinks that b is in a, and now sees a in b.
            func closeAll() {
                for slot in guest.server.nodes.slots.indices.dropFirst(3) { guest.server.nodes.closeDescriptor(slot) }
            }
            closeAll()
            #expect(guest.error(.getattr, a, wire(fuse_getattr_in())) == ESTALE)
            _ = guest.error(.getattr, b, wire(fuse_getattr_in()))
            #expect(try guest.lookup(root, "b").nodeid == b)
            #expect(try guest.lookup(b, "a").nodeid == a)
            #expect(try guest.attributes(a).mode & S_IFMT == S_IFDIR)
            rename(scratch.path + "/b/a", scratch.path + "/a")
            rename(scratch.path + "/b", scratch.path + "/a/b")
            // The other way round, while b's descriptor makes it known still.
            closeAll()
            scratch.makeDirectory("a/b/c")
            _ = guest.error(.lookup, b, text("c"))
            for node in [a, b] { guest.forget(node, .max) }
            guest.forget(root, .max)
            try guest.send(.destroy, 0, [])
            #expect(guest.server.nodes.count == 3)
        }
    }
}
