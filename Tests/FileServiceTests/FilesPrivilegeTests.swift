import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import FileService

extension FilesTests {
    /// Owners, modes, SUID and SGID: as if the guest's process had called the host's kernel.
    @Suite struct Privileges {
        let scratch = ScratchDirectory()
        let guest: FuseGuest
        let root: UInt64

        init() throws {
            guest = try FuseGuest()
            try guest.start()
            try guest.share("data", scratch.path)
            root = try guest.lookup(1, "data").nodeid
        }

        @Test func whatIsMadeIsTheCallers() throws {
            scratch.makeDirectory("open", mode: 0o777)
            let open = try guest.lookup(root, "open").nodeid
            guest.user = 1000
            guest.group = 100
            let made = try guest.create(open, "file", mode: 0o6755, umask: 0o022)
            let directory = try value(
                guest.send(.mkdir, open, guest.directoryArguments("dir", 0o777, umask: 0o027)), fuse_entry_out.self)
            let fifo = value(
                try guest.send(.mknod, open, guest.nodeArguments("fifo", S_IFIFO | 0o666, umask: 0o002)),
                fuse_entry_out.self)
            try guest.send(.symlink, open, text("link") + text("x"))
            let link = try guest.lookup(open, "link")
            for entry in [made.entry, directory, fifo, link] {
                #expect(entry.attr.uid == 1000 && entry.attr.gid == 100)
            }
            #expect(made.entry.attr.mode & 0o7777 == 0o6755)
            #expect(directory.attr.mode & 0o7777 == 0o750)
            #expect(fifo.attr.mode & 0o7777 == 0o664)
            #expect(geteuid() == 0 && getegid() == 0, "and we are ourselves again")
            // A guest's process may have reached a directory by a group that we are not told of.
            scratch.makeDirectory("closed", mode: 0o770)
            let closed = try guest.lookup(root, "closed").nodeid
            #expect(try guest.create(closed, "file").entry.attr.uid == 1000)
            // Nobody is user 2^32-1, and asking to be that one changes nothing: it must not leave us root.
            guest.user = .max
            #expect(guest.error(.mkdir, open, guest.directoryArguments("x")) == EOVERFLOW)
            guest.user = 0
            guest.group = 50
            #expect(try guest.makeDirectory(open, "of-group").attr.gid == 50)
        }

        @Test func directoriesPassOnTheirGroup() throws {
            scratch.makeDirectory("set", mode: 0o777)
            chown(scratch.path + "/set", 0, 500)
            chmod(scratch.path + "/set", 0o2777)
            let set = try guest.lookup(root, "set").nodeid
            guest.user = 1000
            guest.group = 100
            // CVE-2022-0358: no SGID executable of a group that the maker is not in.
            let file = try guest.create(set, "file", mode: 0o2755).entry
            #expect(file.attr.gid == 500 && file.attr.mode & 0o7777 == 0o755)
            let node = value(
                try guest.send(.mknod, set, guest.nodeArguments("node", S_IFREG | 0o2755)), fuse_entry_out.self)
            #expect(node.attr.gid == 500 && node.attr.mode & 0o7777 == 0o755)
            let directory = try guest.makeDirectory(set, "dir", 0o755)
            #expect(directory.attr.gid == 500 && directory.attr.mode & 0o7777 == 0o2755)
            // A member keeps it.
            guest.group = 500
            #expect(try guest.create(set, "mine", mode: 0o2755).entry.attr.mode & 0o7777 == 0o2755)
        }

        @Test func changesTakeSetIDAway() throws {
            func fresh(_ mode: mode_t = 0o6755) throws -> UInt64 {
                scratch.write("program", "0123456789", mode: mode)
                return try guest.lookup(root, "program").nodeid
            }
            func mode(_ node: UInt64) throws -> UInt32 { try guest.attributes(node).mode & 0o7777 }
            // By a process without CAP_FSETID, as the guest's kernel tells; and by one that has it.
            for (kill, expected) in [(true, UInt32(0o755)), (false, 0o6755)] {
                var node = try fresh()
                var handle = try guest.open(node, O_WRONLY).fh
                try guest.write(node, handle, 0, [1], flags: kill ? 4 : 0)
                #expect(try mode(node) == expected, "write")
                node = try fresh()
                _ = try guest.setattr(node, kill ? 8 | 1 << 11 : 8) { $0.size = 2 }
                #expect(try mode(node) == expected, "truncate")
                node = try fresh()
                handle = try guest.open(node, O_WRONLY).fh
                _ = try guest.setattr(node, 8 | 64 | (kill ? 1 << 11 : 0)) { $0.fh = handle }
                #expect(try mode(node) == expected, "ftruncate")
                node = try fresh()
                _ = try guest.open(node, O_WRONLY | O_TRUNC, kill: kill)
                #expect(try mode(node) == expected, "open to truncate")
            }
            // SGID without group execute is no SGID.
            let locking = try fresh(0o2644)
            let handle = try guest.open(locking, O_WRONLY).fh
            try guest.write(locking, handle, 0, [1], flags: 4)
            #expect(try mode(locking) == 0o2644)
            let owned = try fresh()
            _ = try guest.setattr(owned, 2) { $0.uid = 9 }
            #expect(try mode(owned) == 0o755, "chown")
            // Setting an ACL for who is not in the group.
            let listed = try fresh(0o2755)
            let entries: [[UInt8]] = [(1, 7), (4, 5), (32, 5)].map {
                wire(UInt16($0.0)) + wire(UInt16($0.1)) + wire(UInt32.max)
            }
            let list = wire(UInt32(2)) + entries.flatMap { $0 }
            let code = guest.error(.setxattr, listed, guest.xattrArguments("system.posix_acl_access", list, flags: 1))
            if code != EOPNOTSUPP {
                #expect(code == 0)
                #expect(try mode(listed) == 0o755, "ACL")
            }
        }

        @Test func cachedPagesAreKeptOnlyIfRight() throws {
            scratch.write("file", "one")
            let node = try guest.lookup(root, "file").nodeid
            func keeps() throws -> Bool {
                let out = try guest.open(node)
                try guest.release(node, out.fh)
                return out.open_flags & FuseFlag.openKeepCache != 0
            }
            var start: ContinuousClock.Instant
            repeat {
                // On a busy machine the file may be old already when it is opened; then once more.
                scratch.write("file", "one")
                start = .now
                #expect(try !keeps(), "never seen before, or not like this")
            } while ContinuousClock.now - start > .milliseconds(80)
            usleep(150_000)
            #expect(try !keeps(), "changed just before the last open")
            #expect(try keeps())
            #expect(try keeps())
            scratch.write("file", "two")
            #expect(try !keeps())
        }
    }
}
