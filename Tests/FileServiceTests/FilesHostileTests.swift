import CLinux
import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import FileService

extension FilesTests {
    /// A guest that means harm gets errors, and nothing outside its share is touched.
    @Suite struct Hostile {
        /// A share with a file and a directory, beside it a file that is none of the guest's business.
        final class Scene {
            let scratch: ScratchDirectory
            let guest: FuseGuest
            let root: UInt64
            let file: UInt64
            let directory: UInt64

            init(
                readOnly: Bool = false, in parent: String = "/tmp", _ options: FileServer.Options = .init()
            ) throws {
                scratch = ScratchDirectory(in: parent)
                scratch.makeDirectory("share")
                scratch.makeDirectory("share/directory")
                scratch.write("share/file", "inside")
                scratch.write("secret", "outside", mode: 0o4755)
                guest = try FuseGuest(options)
                try guest.start()
                try guest.share("data", scratch.path + "/share", readOnly: readOnly)
                root = try guest.lookup(1, "data").nodeid
                file = try guest.lookup(root, "file").nodeid
                directory = try guest.lookup(root, "directory").nodeid
            }

            var isUntouched: Bool {
                scratch.read("secret") == "outside" && scratch.status("secret")?.st_mode == S_IFREG | 0o4755
            }
        }

        @Test func namesThatAreWays() throws {
            let scene = try Scene()
            let guest = scene.guest
            let long = String(repeating: "n", count: 256)
            // Only ways to what is this test's own: it must do no harm where it fails.
            let absolute = scene.scratch.path + "/secret"
            var names: [[UInt8]] = ["", ".", "..", "../secret", "directory/..", absolute, "a/b", "/", long].map(text)
            names += [
                [], Array("file".utf8), text("file") + [0], text("file") + text("x"), [0], [0, 0],
                text("..") + text("x"),
            ]
            for name in names {
                let accepted: Set<Int32> = [EINVAL, ENAMETOOLONG]
                let good = text("good")
                let root = scene.root
                let requests: [(FuseOperation, [UInt8])] = [
                    (.lookup, name), (.unlink, name), (.rmdir, name), (.symlink, name + good),
                    (.mknod, Array(guest.nodeArguments("", S_IFREG | 0o644).dropLast()) + name),
                    (.mkdir, Array(guest.directoryArguments("").dropLast()) + name),
                    (.create, Array(guest.createArguments("").dropLast()) + name),
                    (.link, wire(scene.file) + name), (.rename, wire(root) + name + good),
                    (.rename, wire(root) + text("file") + name), (.rename2, wire(root) + wire(UInt64(2)) + name + good),
                ]
                for (operation, arguments) in requests {
                    // Two names in a row where two are due are no fault.
                    if operation == .symlink || operation == .rename || operation == .rename2,
                        name == text("file") + text("x") || name == text("file") + [0]
                    {
                        continue
                    }
                    let code = guest.error(operation, root, arguments)
                    // A name without its NUL runs into the next one and is one name then.
                    if name == Array("file".utf8) || name.isEmpty, [.symlink, .rename, .rename2].contains(operation) {
                        continue
                    }
                    #expect(accepted.contains(code), "\(operation) of \(name.prefix(12)) answered \(code)")
                }
            }
            #expect(guest.error(.lookup, 1, text("..")) == EINVAL)
            #expect(scene.isUntouched)
        }

        @Test func numbersThatNobodyHas() throws {
            let scene = try Scene()
            let guest = scene.guest
            let gone = try guest.makeDirectory(scene.root, "gone")
            try guest.send(.rmdir, scene.root, text("gone"))
            guest.forget(gone.nodeid)
            // The slot has a new tenant; the old number must not reach it.
            let new = try guest.makeDirectory(scene.root, "new")
            #expect(new.nodeid & 0xffff_ffff == gone.nodeid & 0xffff_ffff && new.nodeid != gone.nodeid)
            var numbers: [UInt64] = [
                0, gone.nodeid, .max, 1 << 32 | 1, scene.file ^ (1 << 32), 0x7fff_ffff, 0xffff_ffff,
            ]
            numbers += (0..<64).map { 1 << $0 }.filter { $0 != 1 }
            for number in numbers {
                for (operation, arguments) in everyRequest(guest, handle: 1 << 32) {
                    let code = guest.error(operation, number, arguments)
                    #expect(code != 0, "\(operation) of node \(number)")
                }
                guest.forget(number, .max)
            }
            for number in numbers {
                #expect(guest.error(.link, scene.root, wire(number) + text("x")) != 0)
                #expect(guest.error(.rename, scene.root, wire(number) + text("file") + text("x")) != 0)
            }
            #expect(try guest.attributes(scene.file).size == 6, "still known")
            #expect(scene.isUntouched)
        }

        /// One well-formed request of each kind that needs a node.
        func everyRequest(_ guest: FuseGuest, handle: UInt64) -> [(FuseOperation, [UInt8])] {
            var release = fuse_release_in()
            release.fh = handle
            var range = fuse_fallocate_in()
            range.fh = handle
            range.length = 10
            var copy = fuse_copy_file_range_in()
            copy.fh_in = handle
            copy.len = 10
            var seek = fuse_lseek_in()
            seek.fh = handle
            seek.whence = UInt32(martlet_SEEK_DATA)
            return [
                (.lookup, text("file")), (.getattr, wire(fuse_getattr_in())), (.setattr, guest.setattrArguments(1)),
                (.readlink, []), (.symlink, text("a") + text("b")), (.mknod, guest.nodeArguments("m", S_IFIFO | 0o600)),
                (.mkdir, guest.directoryArguments("d")), (.unlink, text("file")), (.rmdir, text("directory")),
                (.rename, wire(UInt64(1)) + text("a") + text("b")), (.rename2, guest.renameArguments("a", 1, "b")),
                (.link, wire(UInt64(1)) + text("l")), (.open, guest.openArguments(O_RDONLY)),
                (.create, guest.createArguments("c")), (.tmpfile, guest.createArguments("/")),
                (.read, guest.readArguments(handle, 0, 100)),
                (.write, guest.writeArguments(handle, 0, [1])), (.release, wire(release)),
                (.flush, wire(release)), (.fsync, wire(release)), (.opendir, guest.openArguments(O_RDONLY)),
                (.readdir, guest.readArguments(handle, 0, 100)), (.readdirplus, guest.readArguments(handle, 0, 4096)),
                (.releasedir, wire(release)), (.fsyncdir, wire(release)), (.statfs, []), (.access, wire(UInt64(0))),
                (.setxattr, guest.xattrArguments("user.a", [1])), (.getxattr, guest.getxattrArguments("user.a", 10)),
                (.listxattr, guest.getxattrArguments("", 10)), (.removexattr, text("user.a")),
                (.fallocate, wire(range)), (.lseek, wire(seek)), (.copyFileRange, wire(copy)), (.ioctl, wire(release)),
                (.syncfs, wire(UInt64(0))),
            ]
        }

        @Test func handlesOfAnotherKindOrNode() throws {
            let scene = try Scene()
            let guest = scene.guest
            let file = try guest.open(scene.file, O_RDWR).fh
            let directory = value(try guest.send(.opendir, scene.directory, guest.openArguments(0)), fuse_open_out.self)
                .fh
            let other = try guest.create(scene.root, "other")
            for handle in [directory, other.handle, 0, .max, file + 1, file ^ (1 << 32)] {
                #expect(guest.error(.read, scene.file, guest.readArguments(handle, 0, 10)) == EBADF)
                #expect(guest.error(.write, scene.file, guest.writeArguments(handle, 0, [1])) == EBADF)
                let size = guest.setattrArguments(8 | 64) { $0.fh = handle }
                #expect(guest.error(.setattr, scene.file, size) == EBADF)
                for operation in [FuseOperation.flush, .fsync, .fallocate, .release] {
                    let arguments = wire(handle) + [UInt8](repeating: 0, count: 24)
                    #expect(guest.error(operation, scene.file, arguments) == EBADF, "\(operation)")
                }
            }
            for operation in [FuseOperation.readdir, .readdirplus] {
                #expect(guest.error(operation, scene.directory, guest.readArguments(file, 0, 4096)) == EBADF)
            }
            #expect(guest.error(.read, scene.directory, guest.readArguments(directory, 0, 10)) == EBADF)
            let reading = try guest.open(scene.file, O_RDONLY).fh
            #expect(guest.error(.write, scene.file, guest.writeArguments(reading, 0, [1])) == EBADF)
            #expect(guest.error(.setattr, scene.file, guest.setattrArguments(8 | 64) { $0.fh = reading }) == EBADF)
            try guest.release(scene.file, file)
            #expect(guest.error(.read, scene.file, guest.readArguments(file, 0, 10)) == EBADF)
            #expect(guest.error(.open, scene.file, guest.openArguments(3)) == EINVAL)
            #expect(try guest.attributes(scene.file).size == 6)
        }

        @Test func lengthsThatLie() throws {
            let scene = try Scene()
            let guest = scene.guest
            let handle = try guest.open(scene.file, O_RDWR).fh
            // The header's length against what there is.
            for claim in [0, 39, 40, 41, 79, 81, 1 << 20, Int(UInt32.max)] {
                var request = guest.request(
                    FuseOperation.getattr.rawValue, scene.file,
                    wire(fuse_getattr_in()) + wire(UInt64(0)) + wire(UInt64(0)))
                request.replaceSubrange(0..<4, with: wire(UInt32(claim)))
                let (used, reply) = guest.raw(request, room: 200)
                #expect(used == 16 && value(reply, fuse_out_header.self).error == -EINVAL, "\(claim)")
            }
            // Every request, cut short at each place, header included, with little room.
            for (operation, arguments) in everyRequest(guest, handle: handle) {
                let whole = guest.request(operation.rawValue, scene.file, arguments)
                for length in stride(from: 0, to: whole.count, by: 3) {
                    var request = Array(whole.prefix(length))
                    if length >= 4 { request.replaceSubrange(0..<4, with: wire(UInt32(length))) }
                    _ = guest.raw(request, room: 4096)
                }
                for room in [0, 1, 15, 16, 17, 23] {
                    let used = guest.raw(guest.request(operation.rawValue, scene.root, arguments), room: room).used
                    #expect(used == 0 || used >= 16)
                    #expect(room >= 16 || used == 0)
                }
            }
            scene.scratch.write("share/file", "inside")
            let again = try guest.walk("data/file").nodeid
            let fresh = try guest.open(again, O_RDWR).fh
            // Sizes within requests.
            var write = fuse_write_in()
            write.fh = fresh
            for size in [0, 5, 7, 1 << 20, UInt32.max] {
                write.size = size
                #expect(guest.error(.write, again, wire(write) + [UInt8](repeating: 1, count: 6)) == EINVAL)
            }
            for offset in [UInt64.max, 1 << 63, UInt64(Int64.max)] {
                #expect(guest.error(.read, again, guest.readArguments(fresh, offset, 100)) == EINVAL)
                #expect([EINVAL, EFBIG].contains(guest.error(.write, again, guest.writeArguments(fresh, offset, [1]))))
            }
            #expect(try guest.send(.read, again, guest.readArguments(fresh, 0, Int(UInt32.max)), room: 18).count == 2)
            let huge = guest.getxattrArguments("user.none", .max)
            #expect(guest.error(.getxattr, again, huge) == ENODATA)
            #expect(guest.error(.listxattr, again, guest.getxattrArguments("", .max)) == 0)
            var set = fuse_setxattr_in()
            set.size = .max
            #expect(guest.error(.setxattr, again, wire(set) + text("user.a") + [1, 2]) == EINVAL)
            let most = [UInt8](repeating: 0, count: 1 << 18)
            #expect(guest.error(.lookup, scene.root, most) == EINVAL)
            // A batch that promises more than it brings.
            _ = guest.raw(
                guest.request(42, 0, wire(UInt64(UInt32.max)) + wire(scene.directory) + wire(UInt64.max)), room: 0)
            #expect(
                guest.error(.getattr, scene.directory, wire(fuse_getattr_in())) == ESTALE, "the one that it brought")
            #expect(scene.isUntouched)
        }

        @Test func forgettingTooMuch() throws {
            let scene = try Scene()
            let guest = scene.guest
            _ = try guest.lookup(scene.root, "file")
            guest.forget(scene.file, 1)
            #expect(guest.error(.getattr, scene.file, wire(fuse_getattr_in())) == 0, "one lookup is left")
            let handle = try guest.open(scene.file).fh
            guest.forget(scene.file, .max)
            #expect(try guest.read(scene.file, handle, 0, 6) == Array("inside".utf8), "open, so still known")
            try guest.release(scene.file, handle)
            #expect(guest.error(.getattr, scene.file, wire(fuse_getattr_in())) == ESTALE)
            for _ in 0..<3 {
                guest.forget(1, .max)
                guest.forget(scene.root, .max)
            }
            #expect(guest.error(.getattr, 1, wire(fuse_getattr_in())) == 0)
            #expect(try guest.walk("data/file").attr.size == 6)
        }

        @Test func linksAreNotFollowed() throws {
            let scene = try Scene()
            let guest = scene.guest
            symlink("../secret", scene.scratch.path + "/share/way")
            symlink("..", scene.scratch.path + "/share/up")
            symlink(scene.scratch.path, scene.scratch.path + "/share/whole")
            for name in ["way", "up", "whole"] {
                let link = try guest.lookup(scene.root, name)
                #expect(link.attr.mode & S_IFMT == S_IFLNK)
                #expect(guest.error(.open, link.nodeid, guest.openArguments(O_RDWR)) == ENXIO)
                #expect(guest.error(.opendir, link.nodeid, guest.openArguments(0)) == ENOTDIR)
                #expect(guest.error(.lookup, link.nodeid, text("etc")) == ENOTDIR)
                #expect(guest.error(.setattr, link.nodeid, guest.setattrArguments(8)) == EINVAL)
                #expect(guest.error(.create, scene.root, guest.createArguments(name, O_RDWR | O_TRUNC)) == ESTALE)
                #expect(guest.error(.setxattr, link.nodeid, guest.xattrArguments("user.a", [1])) == EPERM)
                #expect(guest.error(.unlink, link.nodeid, text("secret")) == ENOTDIR)
                let hard = value(
                    try guest.send(.link, scene.root, wire(link.nodeid) + text(name + "2")), fuse_entry_out.self)
                #expect(hard.attr.mode & S_IFMT == S_IFLNK)
            }
            #expect(scene.isUntouched)
        }

        /// The host (or another guest of the same directory) swaps a directory and a link to the outside as fast as
        /// it can, while the guest works below it.
        @Test func swappingADirectoryForALink() throws {
            let scene = try Scene(in: "/dev/shm")
            let guest = scene.guest
            let share = scene.scratch.path + "/share"
            scene.scratch.makeDirectory("outside")
            scene.scratch.write("outside/victim", "outside", mode: 0o600)
            scene.scratch.write("share/directory/victim", "inside")
            symlink(scene.scratch.path + "/outside", share + "/link")
            let flags = SwapFlags()
            let path = scene.scratch.path
            let ended = try Promise<Bool>()
            try startThread("swap") {
                while !flags.stop.load(ordering: .relaxed) {
                    martlet_renameat2(AT_FDCWD, path + "/share/directory", AT_FDCWD, path + "/share/link", 2)
                    flags.swaps.wrappingAdd(1, ordering: .relaxed)
                }
                ended.settle(true)
            }
            var served = 0
            var outside = 0
            let bytes = Array("guest".utf8)
            let start = ContinuousClock.now
            while ContinuousClock.now < start + .seconds(served > 20 ? 2 : 30) {
                for name in ["directory", "link"] {
                    guard let entry = try? guest.lookup(scene.root, name) else { continue }
                    if let file = try? guest.lookup(entry.nodeid, "victim") {
                        if let handle = try? guest.open(file.nodeid, O_RDWR | O_TRUNC).fh {
                            _ = try? guest.write(file.nodeid, handle, 0, bytes)
                            try? guest.release(file.nodeid, handle)
                            served += 1
                        }
                        _ = guest.error(.setattr, file.nodeid, guest.setattrArguments(1) { $0.mode = 0o666 })
                    }
                    if let made = try? guest.create(entry.nodeid, "made") {
                        try? guest.release(made.entry.nodeid, made.handle)
                    }
                    _ = guest.error(.mkdir, entry.nodeid, guest.directoryArguments("made-too"))
                    guest.server.nodes.request += 1
                    guest.server.nodes.evict()
                    guest.server.nodes.evict()
                    if scene.scratch.status("outside/made") != nil { outside += 1 }
                }
            }
            flags.stop.store(true, ordering: .relaxed)
            #expect(ended.wait(timeout: .seconds(10)) == true)
            #expect(flags.swaps.load(ordering: .relaxed) > 100 && served > 20, "a race that raced")
            #expect(outside == 0)
            #expect(scene.scratch.read("outside/victim") == "outside")
            #expect(scene.scratch.status("outside/victim")?.st_mode == S_IFREG | 0o600)
            #expect(scene.scratch.status("outside/made-too") == nil)
        }
    }
}

/// What the thread of the swapping test shares with it.
private final class SwapFlags: Sendable {
    let stop = Atomic<Bool>(false)
    let swaps = Atomic<Int>(0)
}
