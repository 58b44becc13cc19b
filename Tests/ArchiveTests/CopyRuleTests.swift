import Archive
import CLinux
import Glibc
import LinuxSystem
import Testing

/// Where files go, and by what name: the table of cp(1) and `docker cp`.
@Suite struct CopyRuleTests {
    struct Case: CustomTestStringConvertible, Sendable {
        let source: String
        let destination: String
        /// What is there then: paths with contents; nil: it is refused.
        let result: [String]?

        var testDescription: String { "\(source) to \(destination)" }
    }

    /// There are `f` and `d/x`, `d/s/y`, `l` (to f), `m` (to d); in the destination a file `file`, a directory `dir`, links `tofile`,
    /// `todir`, and `nowhere` (to `dir/made`).
    static let cases: [Case] = [
        Case(source: "f", destination: "in/new", result: ["new:F"]),
        Case(source: "f", destination: "in/new/", result: nil),
        Case(source: "f", destination: "in/no/new", result: nil),
        Case(source: "f", destination: "in/file", result: ["file:F"]),
        Case(source: "f", destination: "in/file/", result: nil),
        Case(source: "f", destination: "in/dir", result: ["dir/f:F"]),
        Case(source: "f", destination: "in/dir/", result: ["dir/f:F"]),
        Case(source: "f", destination: "in/todir", result: ["dir/f:F"]),
        Case(source: "f", destination: "in/tofile", result: ["file:F"]),
        Case(source: "f", destination: "in/nowhere", result: ["dir/made:F"]),
        Case(source: "f/", destination: "in/new", result: nil),
        Case(source: "none", destination: "in/new", result: nil),
        Case(source: "d", destination: "in/new", result: ["new/x:X", "new/s/y:Y"]),
        Case(source: "d", destination: "in/new/", result: ["new/x:X", "new/s/y:Y"]),
        Case(source: "d", destination: "in/file", result: nil),
        Case(source: "d", destination: "in/dir", result: ["dir/d/x:X", "dir/d/s/y:Y"]),
        Case(source: "d/", destination: "in/dir", result: ["dir/d/x:X", "dir/d/s/y:Y"]),
        Case(source: "d/.", destination: "in/dir", result: ["dir/x:X", "dir/s/y:Y"]),
        Case(source: "d/.", destination: "in/new", result: ["new/x:X", "new/s/y:Y"]),
        Case(source: "d/.", destination: "in/file", result: nil),
        Case(source: "d/s/..", destination: "in/new", result: ["new/x:X", "new/s/y:Y"]),
        Case(source: "l", destination: "in/new", result: ["new->f"]),
        Case(source: "m", destination: "in/new", result: ["new->d"]),
        Case(source: "m/", destination: "in/new", result: ["new/x:X", "new/s/y:Y"]),
        Case(source: "m/.", destination: "in/dir", result: ["dir/x:X", "dir/s/y:Y"]),
    ]

    private func scene() throws -> Scratch {
        let scratch = try Scratch()
        try scratch.shell(
            """
            printf F > f && mkdir -p d/s && printf X > d/x && printf Y > d/s/y && ln -s f l && ln -s d m
            printf old > in/file && mkdir in/dir && ln -s file in/tofile && ln -s dir in/todir && ln -s dir/made in/nowhere
            """)
        return scratch
    }

    @Test(arguments: cases) func theRuleHolds(case: Case) throws {
        let scratch = try scene()
        let copy = { try scratch.unpack(scratch.pack(`case`.source), to: `case`.destination, .place) }
        guard let result = `case`.result else {
            #expect(throws: ArchiveError.self) { try copy() }
            #expect(scratch.read("in/file") == "old")
            return
        }
        _ = try copy()
        for wanted in result {
            if let arrow = wanted.firstRange(of: "->") {
                let name = wanted[..<arrow.lowerBound]
                #expect(symbolicLink("\(scratch.inside)/\(name)") == String(wanted[arrow.upperBound...]))
            } else {
                let parts = wanted.split(separator: ":")
                #expect(scratch.read("in/\(parts[0])") == String(parts[1]), "\(wanted)")
            }
        }
        // No link was replaced.
        for link in ["tofile", "todir"] { #expect(symbolicLink("\(scratch.inside)/\(link)") != nil) }
    }

    @Test func aLinkIsFollowedOnRequest() throws {
        let scratch = try scene()
        try scratch.unpack(scratch.pack("l", followsLink: true), to: "in/dir", .place)
        #expect(scratch.read("in/dir/l") == "F")
        try scratch.unpack(scratch.pack("m", followsLink: true), to: "in/dir", .place)
        #expect(scratch.read("in/dir/m/s/y") == "Y")
    }

    @Test func nothingIsWrittenIntoWhatIsNoFile() throws {
        let scratch = try scene()
        try scratch.shell("mkfifo in/fifo")
        #expect(throws: ArchiveError.self) { try scratch.unpack(scratch.pack("f"), to: "in/fifo", .place) }
        #expect(try #require(scratch.status("in/fifo")).st_mode & S_IFMT == S_IFIFO)
    }

    @Test func onlyADirectorysOwnEntryOnRequest() throws {
        let scratch = try scene()
        let entries = try scratch.entries(scratch.pack("d", isShallow: true)).map(\.entry)
        #expect(entries.map(\.name.text) == ["d"] && entries.first?.kind == .directory)
        #expect(try scratch.entries(scratch.pack("d/.", isShallow: true)).map(\.entry.name.text) == ["."])
    }

    @Test func aMissingDirectoryIsMadeOnRequest() throws {
        let scratch = try scene()
        try scratch.unpack(scratch.pack("f"), to: "in/a/b", .directory(isMade: true))
        #expect(scratch.read("in/a/b/f") == "F")
        #expect(throws: ArchiveError.notFound("\(scratch.path)/in/no")) {
            try scratch.unpack(scratch.pack("f"), to: "in/no", .directory(isMade: false))
        }
        #expect(throws: ArchiveError.self) {
            try scratch.unpack(scratch.pack("f"), to: "in/file", .directory(isMade: false))
        }
    }

    @Test func socketsAndTheKernelsFilesAreLeftOut() throws {
        let scratch = try scene()
        let socket = try UnixAddress.listen(scratch.path + "/d/socket", type: SOCK_STREAM)
        defer { withExtendedLifetime(socket) {} }
        let names = try scratch.entries(scratch.pack("d")).map(\.entry.name.text)
        #expect(names == ["d", "d/x", "d/s", "d/s/y"])
        #expect(throws: ArchiveError.self) { try scratch.pack("d/socket") }
        guard geteuid() == 0 else { return }
        try scratch.shell(
            "mkdir d/proc && unshare -m sh -c 'mount --make-rprivate / && mount -t proc proc d/proc && exec sleep 30' & echo $! > pid; sleep 0.2"
        )
        let pid = try #require(scratch.read("pid").flatMap { Int32($0.split(separator: "\n")[0]) })
        defer { kill(pid, SIGKILL) }
        var packed: [String] = []
        let root = try RootDirectory("/proc/\(pid)/root")
        for _ in 0..<50 where !packed.contains("d/proc") || packed.count > 6 {
            usleep(100_000)
            let file = SharedDescriptor(try OwnedDescriptor.memory("archive", size: 0))
            var packer = Packer(to: file)
            try packer.pack(CopySource(root: root, path: scratch.path + "/d", followsLink: false))
            lseek(file.raw, 0, SEEK_SET)
            packed = try scratch.entries(file).map(\.entry.name.text)
        }
        #expect(packed == ["d", "d/x", "d/proc", "d/s", "d/s/y"])
    }

    @Test func aTreeOfAnyDepthIsPacked() throws {
        let scratch = try Scratch()
        // Short of the longest path that there is, with more levels than a process may have descriptors.
        try scratch.shell("p=t; for i in $(seq 1100); do p=$p/d; done; mkdir -p $p && printf deep > $p/f")
        try scratch.unpack(scratch.pack("t"))
        #expect(try scratch.shell("find in/t -name f -exec cat {} +") == "deep")
    }
}
