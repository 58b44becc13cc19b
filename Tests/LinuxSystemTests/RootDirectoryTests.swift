import CLinux
import Glibc
import LinuxSystem
import Testing

@Suite struct RootDirectoryTests {
    /// A root with links, in a directory that nothing may appear in.
    private func play(_ body: (_ root: RootDirectory, _ path: String) throws -> Void) throws {
        var template = Array("/tmp/martlet-root.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        let outer = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let path = outer + "/root"
        try #require(mkdir(path, 0o755) == 0)
        defer { remove(outer) }
        try body(try RootDirectory(path), path)
        #expect(try directoryNames(outer) == ["root"])
    }

    private func remove(_ path: String) {
        for name in (try? directoryNames(path)) ?? [] { remove("\(path)/\(name)") }
        if unlink(path) != 0 { rmdir(path) }
    }

    private func type(_ path: String) -> mode_t {
        var facts = stat()
        return lstat(path, &facts) == 0 ? facts.st_mode : 0
    }

    @Test(arguments: [
        ("etc/resolv.conf", "../run/systemd/resolve/stub.conf", "/run/systemd/resolve/stub.conf"),
        ("etc/a", "/absolute/b", "/absolute/b"), ("etc/c", "../../../../above/d", "/above/d"),
        ("etc/e", "/no/such/../../where", "/where"),
    ]) func aFileBehindADanglingLinkIsMade(link: String, target: String, made: String) throws {
        try play { root, path in
            #expect(mkdir(path + "/etc", 0o755) == 0 && symlink(target, "\(path)/\(link)") == 0)
            let file = try root.makeMountPoint("/" + link, isDirectory: false)
            #expect(type(path + made) == S_IFREG | 0o644)
            #expect(try file.information().st_ino == (try root.open(made, O_PATH)).information().st_ino)
            #expect(type("\(path)/\(link)") & S_IFMT == S_IFLNK)
            // Once it is there, it is found.
            #expect(
                try root.makeMountPoint("/" + link, isDirectory: false).information().st_ino
                    == file.information().st_ino)
        }
    }

    @Test func directoriesBehindDanglingLinksAreMade() throws {
        try play { root, path in
            #expect(symlink("/realrun", path + "/run") == 0 && symlink("run/second", path + "/first") == 0)
            _ = try root.makeMountPoint("/first/x", isDirectory: true)
            #expect(type(path + "/realrun/second/x") == S_IFDIR | 0o755)
            _ = try root.makeDirectories("/run")
            let (parent, name) = try root.makeParent(of: "/run/dev/null")
            #expect(name == "null" && type(path + "/realrun/dev") & S_IFMT == S_IFDIR)
            #expect(try parent.information().st_ino == (try root.open("/realrun/dev", O_PATH)).information().st_ino)
            #expect(try root.makeDirectories("../../up").information().st_ino != 0)
            #expect(type(path + "/up") & S_IFMT == S_IFDIR)
        }
    }

    /// To the kernel a slash is one byte, whatever character it and the next byte are together.
    @Test func aMarkAfterASlashHidesNothing() throws {
        try play { root, path in
            let outer = path.split(separator: "/").dropLast().map { "/" + $0 }.joined()
            #expect(symlink(outer, path + "/out") == 0 && symlink("out/\u{301}x", path + "/link") == 0)
            _ = try root.makeMountPoint("/link", isDirectory: true)
            #expect(type(path + outer + "/\u{301}x") & S_IFMT == S_IFDIR)
            #expect(RootDirectory.components("/a/\u{301}b/./c") == ["a", "\u{301}b", "c"])
        }
    }

    @Test func whatIsInTheWayIsNamed() throws {
        try play { root, path in
            #expect(symlink("loop2", path + "/loop1") == 0 && symlink("loop1", path + "/loop2") == 0)
            #expect(symlink("file/x", path + "/through") == 0 && mknod(path + "/file", S_IFREG | 0o644, 0) == 0)
            for (place, isDirectory, error) in [
                ("/loop1", true, ELOOP), ("/loop1/x", false, ELOOP),
                ("/through", false, ENOTDIR), ("/file", true, ENOTDIR), ("/file/x", true, ENOTDIR),
            ] {
                let failure = #expect(throws: SystemError.self, "\(place)") {
                    try root.makeMountPoint(place, isDirectory: isDirectory)
                }
                #expect(
                    failure?.errno.rawValue == error && failure?.subject == place,
                    "\(place): \(String(describing: failure))")
            }
            #expect(throws: SystemError.self) { try root.makeParent(of: "/..") }
        }
    }
}
