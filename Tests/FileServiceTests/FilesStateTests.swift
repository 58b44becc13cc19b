import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import FileService

extension FilesTests {
    /// What the guest knows goes on with another server.
    @Suite struct States {
        /// A tree, and a server over it.
        final class Scene {
            let scratch: ScratchDirectory
            private(set) var guest: FuseGuest
            /// Each share's path below the scratch directory.
            let shares: [(name: String, path: String, readOnly: Bool)]

            init(
                _ shares: [(name: String, path: String, readOnly: Bool)] = [("data", "data", false)],
                in parent: String = "/tmp", _ options: FileServer.Options = .init()
            ) throws {
                self.shares = shares
                scratch = ScratchDirectory(in: parent)
                scratch.makeDirectory("data")
                for name in ["sub", "sub/deep", "list"] { scratch.makeDirectory("data/\(name)") }
                for name in ["file", "other", "sub/deep/down"] { scratch.write("data/\(name)", "text of \(name)") }
                for number in 0..<60 { scratch.write("data/list/entry-\(number)", "\(number)") }
                symlink("sub/deep", scratch.path + "/data/link")
                mkfifo(scratch.path + "/data/fifo", 0o600)
                guest = try FuseGuest(options)
                try share(guest)
            }

            private func share(_ guest: FuseGuest) throws {
                for (name, path, readOnly) in shares {
                    try guest.share(name, "\(scratch.path)/\(path)", readOnly: readOnly, fileSystem: "fs")
                }
            }

            /// Another server over the same files, which gets the state.
            func restored(_ state: [UInt8], _ options: FileServer.Options = .init()) throws -> FuseGuest {
                let other = try FuseGuest(options)
                try share(other)
                try other.server.restore(state)
                return other
            }

            /// Why another server over the same files does not take the state.
            func refusal(_ state: [UInt8], _ options: FileServer.Options = .init()) -> String {
                do { _ = try restored(state, options) } catch { return "\(error)" }
                return "restored"
            }

            /// Why nothing can be saved.
            var saveRefusal: String {
                do { _ = try guest.server.save() } catch { return "\(error)" }
                return "saved"
            }
        }

        /// The same numbers in a server over the same files, and in one over a copy on another device.
        @Test(arguments: ["/tmp", "/dev/shm"]) func theNumbersGoOn(place: String) throws {
            let scene = try Scene()
            let guest = scene.guest
            try guest.start()
            let root = try guest.walk("data").nodeid
            let file = try guest.walk("data/file").nodeid
            let down = try guest.walk("data/sub/deep/down").nodeid
            let deep = try guest.walk("data/sub/deep").nodeid
            let link = try guest.walk("data/link").nodeid
            let fifo = try guest.walk("data/fifo").nodeid
            let (made, _) = try guest.create(root, "made")
            try guest.send(.rename2, root, guest.renameArguments("made", deep, "moved"))
            let reader = try guest.open(down).fh
            let writer = try guest.open(file, O_RDWR | O_DSYNC).fh
            let closed = try guest.open(file).fh
            #expect(try guest.write(file, writer, 0, Array("TEXT".utf8)) == 4)
            try guest.release(file, closed)
            let list = try guest.walk("data/list").nodeid
            let listing = try guest.openDirectory(list)
            let half = try guest.entries(list, listing, from: 0, size: 1024)
            // A slot that was used before.
            let forgotten = try guest.walk("data/other").nodeid
            guest.forget(forgotten, .max)
            let lookups = guest.server.nodes.slots.map(\.lookups)

            let state = try guest.server.save()
            #expect(try guest.server.save() == state, "saving changes nothing")
            let other = place == "/tmp" ? scene : try Scene(in: place)
            if other !== scene {
                other.scratch.write("data/file", "TEXT of file")
                other.scratch.write("data/sub/deep/moved", "")
            }
            let next = try other.restored(state)
            #expect(next.server.nodes.slots.map(\.lookups) == lookups)
            #expect(try next.server.save() == state, "what was restored is saved as the same")

            // Known files keep their numbers, new ones get numbers that nobody had.
            for (path, node) in [
                ("data", root), ("data/file", file), ("data/sub/deep/down", down), ("data/link", link),
                ("data/fifo", fifo), ("data/sub/deep/moved", made.nodeid),
            ] {
                #expect(try next.walk(path).nodeid == node, "\(path)")
                let inode = other.scratch.status(path).map { UInt64($0.st_ino) }
                #expect(try next.attributes(node).ino == inode, "\(path)")
            }
            let again = try next.walk("data/other").nodeid
            #expect(again & 0xffff_ffff == forgotten & 0xffff_ffff && again != forgotten)
            #expect(next.error(.getattr, forgotten, wire(fuse_getattr_in())) == ESTALE)

            // Handles read and write where the guest wants.
            #expect(try next.read(down, reader, 5, 100) == Array("of sub/deep/down".utf8))
            #expect(next.error(.write, down, next.writeArguments(reader, 0, [1])) == EBADF)
            #expect(try next.write(file, writer, 5, Array("IS".utf8)) == 2)
            #expect(other.scratch.read("data/file") == "TEXT IS file")
            let flags = next.server.handles.find(writer, node: file, directory: false).map {
                fcntl($0.descriptor, F_GETFL)
            }
            #expect(flags.map { $0 & (O_ACCMODE | O_SYNC) } == O_RDWR | O_DSYNC)
            #expect(next.error(.read, file, next.readArguments(closed, 0, 10)) == EBADF)
            #expect(try next.open(file).fh != closed)
            try next.release(down, reader)

            // The rest of the directory; the positions of a copy are its own.
            if other === scene {
                var names = half.map(\.name)
                var position = half.last?.next ?? 0
                while case let some = try next.entries(list, listing, from: position), !some.isEmpty {
                    names += some.map(\.name)
                    position = some.last?.next ?? 0
                }
                #expect(names.count == 62 && Set(names).count == 62)
            }
            let all = try next.entries(list, listing, from: 0, size: 8000)
            #expect(all.count == 62, "from the beginning on")
            try next.release(list, listing, directory: true)

            // All that was known can be forgotten.
            #expect(next.error(.unlink, deep, text("moved")) == 0)
            for slot in next.server.nodes.slots.indices.dropFirst(2) where next.server.nodes.slots[slot].inUse {
                next.forget(next.server.nodes.number(slot), .max)
            }
            #expect(next.server.nodes.count > 3, "files that are open stay")
            try next.send(.destroy, 0, [])
            #expect(next.server.nodes.count == 3 && next.server.handles.count == 0)
        }

        @Test func whatIsOpenMustHaveItsName() throws {
            func refusal(_ change: (Scene, _ root: UInt64, _ file: UInt64, _ handle: UInt64) throws -> Void) throws
                -> String
            {
                let scene = try Scene()
                try scene.guest.start()
                let root = try scene.guest.walk("data").nodeid
                let file = try scene.guest.walk("data/file").nodeid
                try change(scene, root, file, scene.guest.open(file).fh)
                let refusal = scene.saveRefusal
                // The server goes on all the same.
                #expect(try scene.guest.walk("data").nodeid == root)
                return refusal.replacing(scene.scratch.path, with: "")
            }
            #expect(try refusal { _, _, _, _ in } == "saved")
            #expect(
                try refusal { scene, root, _, _ in try scene.guest.send(.unlink, root, text("file")) }
                    == "fs/data/data/file is open but has been deleted")
            #expect(
                try refusal { scene, root, file, handle in
                    try scene.guest.send(.unlink, root, text("file"))
                    try scene.guest.release(file, handle)
                } == "saved")
            #expect(
                try refusal { scene, _, _, _ in unlink(scene.scratch.path + "/data/file") }
                    == "fs/data/file is open but has been deleted")
            #expect(
                try refusal { scene, _, _, _ in
                    rename(scene.scratch.path + "/data/file", scene.scratch.path + "/data/away")
                    scene.scratch.write("data/file", "another")
                } == "fs/data/file is open but has lost its name")
            #expect(
                try refusal { scene, root, _, _ in
                    let directory = try scene.guest.makeDirectory(root, "made").nodeid
                    _ = try scene.guest.openDirectory(directory)
                    try scene.guest.send(.rmdir, root, text("made"))
                } == "fs/data/data/made is open but has been deleted")
            let unnamed = try refusal { scene, root, _, _ in _ = try scene.guest.createUnnamed(root) }
            #expect(unnamed.hasPrefix("fs/data/data/#") && unnamed.hasSuffix(" is open but has been deleted"))
            // Of a directory that the host has moved.
            #expect(
                try refusal { scene, _, _, _ in
                    let down = try scene.guest.walk("data/sub/deep/down").nodeid
                    _ = try scene.guest.open(down)
                    rename(scene.scratch.path + "/data/sub", scene.scratch.path + "/data/away")
                } == "fs/data/sub/deep/down is open but has lost its name")
            // A name is a line of the log.
            #expect(
                try refusal { scene, root, _, _ in
                    _ = try scene.guest.create(root, "a\nb")
                    unlink(scene.scratch.path + "/data/a\nb")
                } == "fs/data/a\\nb is open but has been deleted")
        }

        /// Between save and restore.
        @Test func whatHasGoneIsRefusedOrStale() throws {
            let scene = try Scene()
            let guest = scene.guest
            try guest.start()
            let deep = try guest.walk("data/sub/deep").nodeid
            let down = try guest.walk("data/sub/deep/down").nodeid
            let other = try guest.walk("data/other").nodeid
            let file = try guest.walk("data/file").nodeid
            let link = try guest.walk("data/link").nodeid
            let handle = try guest.open(down).fh
            let state = try guest.server.save()

            // Not open: ESTALE, and another number for what has the name now.
            unlink(scene.scratch.path + "/data/other")
            unlink(scene.scratch.path + "/data/file")
            scene.scratch.makeDirectory("data/file")
            unlink(scene.scratch.path + "/data/link")
            symlink("elsewhere", scene.scratch.path + "/data/link")
            var next = try scene.restored(state)
            for node in [other, file] { #expect(next.error(.getattr, node, wire(fuse_getattr_in())) == ESTALE) }
            #expect(try next.walk("data/file").nodeid != file)
            #expect(try next.walk("data/link").nodeid == link, "a link is what has its name")
            #expect(try next.read(down, handle, 0, 4) == Array("text".utf8))
            next.forget(other, .max)
            #expect(next.server.nodes.slot(other) == nil)
            // Stale ones stay stale.
            scene.scratch.write("data/other", "back")
            next = try scene.restored(next.server.save())
            #expect(next.error(.getattr, file, wire(fuse_getattr_in())) == ESTALE)
            #expect(try next.walk("data/other").nodeid != other)

            // Open: refused by name, also where a link leads to the same.
            rename(scene.scratch.path + "/data/sub/deep", scene.scratch.path + "/data/aside")
            #expect(scene.refusal(state) == "fs/data/sub/deep/down was open and is not there any more")
            symlink("../aside", scene.scratch.path + "/data/sub/deep")
            #expect(scene.refusal(state) == "fs/data/sub/deep/down was open and is not there any more")
            try guest.release(down, handle)
            let closed = try scene.restored(guest.server.save())
            for node in [deep, down] { #expect(closed.error(.getattr, node, wire(fuse_getattr_in())) == ESTALE) }
            #expect(try closed.walk("data/aside").nodeid != deep)
            #expect(try scene.guest.walk("data").nodeid > 1)
        }

        @Test func sharesMustBeTheSame() throws {
            let scene = try Scene([("data", "data", false), ("sub", "data/sub", true)])
            try scene.guest.start()
            let sub = try scene.guest.walk("data/sub").nodeid
            #expect(try scene.guest.walk("sub").nodeid == sub, "one directory is one node")
            let down = try scene.guest.walk("sub/deep/down").nodeid
            let handle = try scene.guest.open(down, O_RDWR).fh
            let state = try scene.guest.server.save()
            func refusal(_ change: (FuseGuest) throws -> Void) throws -> String {
                let other = try FuseGuest()
                try change(other)
                do { try other.server.restore(state) } catch {
                    #expect(try other.list(1).map(\.name) == [".", ".."], "the server has nothing any more")
                    return "\(error)"
                }
                return "restored"
            }
            let path = scene.scratch.path
            #expect(
                try refusal { try $0.share("sub", path + "/data/sub", fileSystem: "fs") }
                    == "file server state: there is no share fs/data")
            #expect(
                try refusal { guest in
                    for name in ["data", "more", "sub"] { try guest.share(name, path + "/data", fileSystem: "fs") }
                } == "file server state: it has no share fs/more")
            #expect(
                try refusal { guest in
                    try guest.share("data", path + "/data/file", fileSystem: "fs")
                    try guest.share("sub", path + "/data/sub", fileSystem: "fs")
                } == "fs/data is of another type than it was")
            // In another order, and the one that was read-only alone leads there: the handle can't be written.
            #expect(
                try refusal { guest in
                    try guest.share("sub", path + "/data/sub", readOnly: true, fileSystem: "fs")
                    try guest.share("data", path + "/data", readOnly: true, fileSystem: "fs")
                } == "fs/sub/deep/down was open and can't be opened again: Read-only file system")
            let other = try FuseGuest()
            try other.share("sub", path + "/data/sub", readOnly: true, fileSystem: "fs")
            try other.share("data", path + "/data", fileSystem: "fs")
            try other.server.restore(state)
            #expect(try other.list(other.walk("fs").nodeid).map(\.name) == [".", "..", "data", "sub"])
            #expect(try other.write(down, handle, 0, Array("T".utf8)) == 1)
            #expect(try other.attributes(1).ino == FileServer.rootInode)
            #expect(try other.walk("fs").attr.ino == scene.guest.walk("fs").attr.ino)
            // What comes after has numbers that nobody had, and what goes takes its files along.
            try other.share("later", path + "/data/list", fileSystem: "fs")
            #expect(try other.list(other.walk("fs").nodeid).map(\.name) == [".", "..", "data", "sub", "later"])
            try other.removeShare("data")
            #expect(other.error(.write, down, other.writeArguments(handle, 0, [1])) == EBADF)
            #expect(try other.attributes(down).mode & S_IFMT == S_IFREG)
            try other.removeShare("sub")
            #expect(other.error(.getattr, down, wire(fuse_getattr_in())) == ESTALE)
        }

        @Test func readOnlySharesStayReadOnly() throws {
            let scene = try Scene([("data", "data", true)])
            try scene.guest.start()
            let root = try scene.guest.walk("data").nodeid
            let file = try scene.guest.walk("data/file").nodeid
            let handle = try scene.guest.open(file).fh
            let state = try scene.guest.server.save()
            let next = try scene.restored(state)
            #expect(next.error(.write, file, next.writeArguments(handle, 0, [1])) == EROFS)
            #expect(next.error(.open, file, next.openArguments(O_RDWR)) == EROFS)
            #expect(next.error(.unlink, root, text("file")) == EROFS)
            #expect(try next.read(file, handle, 0, 4) == Array("text".utf8))
            // A state that claims more.
            var lying = try ServerState(state, maximumNodes: 100, maximumHandles: 100)
            lying.handles[0].flags = O_RDWR
            #expect(
                scene.refusal(lying.encoded())
                    == "fs/data/file was open and can't be opened again: Read-only file system")
        }

        /// Two numbers that turn out to be one file both go on.
        @Test func twoFilesBecomeOne() throws {
            let scene = try Scene()
            let guest = scene.guest
            try guest.start()
            let root = try guest.walk("data").nodeid
            let nodes = try ["file", "other"].map { try guest.walk("data/\($0)").nodeid }
            let handles = try nodes.map { try guest.open($0, O_RDWR).fh }
            let state = try guest.server.save()
            unlink(scene.scratch.path + "/data/other")
            link(scene.scratch.path + "/data/file", scene.scratch.path + "/data/other")
            let next = try scene.restored(state)
            for (node, handle) in zip(nodes, handles) {
                #expect(try next.read(node, handle, 0, 100) == Array("text of file".utf8))
                next.server.nodes.closeDescriptor(Int(node & 0xffff_ffff))
                #expect(try next.attributes(node).nlink == 2)
                try next.release(node, next.open(node).fh)
            }
            let known = try ["file", "other"].map { try next.walk("data/\($0)").nodeid }
            #expect(known[0] == known[1] && nodes.contains(known[0]), "the first is found by both names")
            #expect(try next.list(root, plus: true).count > 3)
            for node in nodes { next.forget(node, .max) }
            for (node, handle) in zip(nodes, handles) { try next.release(node, handle) }
            #expect(nodes.allSatisfy { next.server.nodes.slot($0) == nil })
            // A file with two names is one node, which keeps one of them.
            try guest.start()
            let both = try ["file", "other"].map { try guest.walk("data/\($0)").nodeid }
            #expect(both[0] == both[1])
            let third = try scene.restored(guest.server.save())
            #expect(try ["file", "other"].map { try third.walk("data/\($0)").nodeid } == both)
        }

        /// Deeper than there are descriptors.
        @Test func deepTreesAreFound() throws {
            let scratch = ScratchDirectory(in: "/dev/shm")
            var options = FileServer.Options()
            options.descriptorLimit = 64
            func make() throws -> FuseGuest {
                let guest = try FuseGuest(options)
                try guest.share("data", scratch.path)
                return guest
            }
            let guest = try make()
            try guest.start()
            var nodes = [try guest.walk("data").nodeid]
            for _ in 0..<100 {
                let parent = nodes[nodes.count - 1]
                for name in ["beside", "d"] { nodes.append(try guest.makeDirectory(parent, name).nodeid) }
            }
            _ = try guest.create(nodes[nodes.count - 1], "leaf")
            let next = try make()
            try next.server.restore(guest.server.save())
            #expect(next.server.nodes.slots.allSatisfy { !$0.isStale })
            for node in nodes.reversed() { #expect(try next.attributes(node).mode & S_IFMT == S_IFDIR) }
            #expect(next.error(.unlink, nodes[nodes.count - 1], text("leaf")) == 0)
            for index in stride(from: nodes.count - 1, to: 0, by: -2) {
                let parent = nodes[max(0, index - 2)]
                for name in ["d", "beside"] { #expect(next.error(.rmdir, parent, text(name)) == 0) }
            }
        }
    }
}
