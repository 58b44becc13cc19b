import Archive
import CLinux
import Glibc
import LinuxSystem
import Testing

/// What other programs write is read, and what is written is read by others.
@Suite struct TarFormatTests {
    /// A tree with files of all kinds but devices.
    private static let tree = """
        mkdir -p tree/sub/deep tree/empty && printf hello > tree/file && printf x > tree/sub/one && ln tree/sub/one tree/sub/two
        ln -s ../file tree/sub/link && ln -s /no/such tree/dangling && mkfifo tree/fifo && chmod 751 tree/sub && chmod 4755 tree/file
        head -c 300000 /dev/urandom > tree/sub/deep/large && : > tree/sub/nothing
        long=tree/$(printf 'n%.0s' $(seq 120)) && mkdir -p $long/$(printf 'm%.0s' $(seq 120)) && printf long > $long/$(printf 'm%.0s' $(seq 120))/file
        ln -s $(printf 't%.0s' $(seq 150)) tree/longlink && printf u > "tree/$(printf 'b\\366se')" && printf e > 'tree/ü 好'
        touch -d '2001-02-03 04:05:06.789012345 UTC' tree/file && touch -d '1960-01-01 00:00:00.25 UTC' tree/sub/one
        touch -d '2011-01-01 UTC' tree/sub/deep tree/empty
        """
    /// The names, modes, sizes, owners, times, link targets and contents of a tree, one file a line.
    private static func listing(_ name: String) -> String {
        "cd \(name) && find . -printf '%P|%y|%m|%U|%G|%n|%T@|%l\\n' | sed -E 's/^([^|]*\\|d\\|[^|]*\\|[^|]*\\|[^|]*\\|)[0-9]+/\\1-/' | sort"
            + " && find . -type f -print0 | sort -z | xargs -0 cksum && cd .."
    }

    private static let bsdtar = (["/usr/bin/bsdtar"] as [String]).first { access($0, X_OK) == 0 }

    private static let writers: [String] =
        [
            "tar -cf", "tar --format=gnu -cf", "tar --format=pax -cf", "tar --format=posix --xattrs -cf",
        ] + (bsdtar.map { ["\($0) --format pax -cf", "\($0) --format gnutar -cf"] } ?? [])

    @Test(arguments: writers) func othersArchivesAreRead(writer: String) throws {
        let scratch = try Scratch()
        try scratch.shell(Self.tree)
        // bsdtar has no times before the epoch in GNU's format.
        if writer.contains("bsdtar") { try scratch.shell("touch -d @1000 tree/sub/one") }
        try scratch.shell("\(writer) archive.tar -C . tree")
        try scratch.unpack(
            scratch.open("archive.tar"), to: "in", .directory(isMade: false), .container(keepsOwners: true))
        // Not all of them write fractions of seconds.
        let cut = "sed -E 's/(\\|-?[0-9]+)\\.[0-9]+\\|/\\1|/'"
        let expected = try scratch.shell("(\(Self.listing("tree"))) | \(cut)")
        let wholeSeconds = expected.replacing("-315619199|", with: "-315619200|")
        let found = try scratch.shell("cd in; (\(Self.listing("tree"))) | \(cut)")
        #expect(found.replacing("-315619199|", with: "-315619200|") == wholeSeconds)
    }

    @Test(arguments: ["--format=v7", "--format=oldgnu", "--format=ustar"]) func oldFormatsAreRead(format: String) throws
    {
        let scratch = try Scratch()
        try scratch.shell("mkdir -p t/s && printf hello > t/s/file && ln -s file t/s/link && ln t/s/file t/hard")
        try scratch.shell("tar \(format) -cf archive.tar t")
        try scratch.unpack(scratch.open("archive.tar"))
        #expect(try scratch.shell("cd in && cat t/s/link t/hard && stat -c %h t/hard") == "hellohello2\n")
    }

    @Test(arguments: [
        "tar --warning=no-timestamp -xpf", bsdtar.map { "\($0) -xpf" } ?? "tar --warning=no-timestamp -xpf",
    ])
    func othersReadWhatIsWritten(reader: String) throws {
        let scratch = try Scratch()
        try scratch.shell(Self.tree)
        // bsdtar takes the fraction of a time before the epoch for a later one.
        if reader.contains("bsdtar") { try scratch.shell("touch -d @1000.5 tree/sub/one") }
        _ = try scratch.pack("tree")
        #expect(try scratch.shell("\(reader) archive.tar -C in") == "")
        try scratch.shell("(\(Self.listing("tree"))) >'\(scratch.path)/expected'")
        let difference = try scratch.shell(
            "(cd in; \(Self.listing("tree"))) >'\(scratch.path)/found'; cd '\(scratch.path)'; diff expected found || true"
        )
        #expect(difference == "")
    }

    @Test func aTreeComesBackWhole() throws {
        let scratch = try Scratch()
        try scratch.shell(Self.tree)
        try scratch.unpack(
            scratch.pack("tree"), to: "in", .directory(isMade: false), .container(keepsOwners: true))
        let expected = try scratch.shell(Self.listing("tree"))
        #expect(try scratch.shell("cd in; \(Self.listing("tree"))") == expected)
    }

    @Test func numbersThatDoNotFitAreKept() throws {
        let scratch = try Scratch()
        let entry = TarEntry(
            .directory, bytes("d"), mode: 0o1755, uid: 3_000_000_000, gid: 4_294_967_294,
            modified: (-1, 250_000_000), attributes: [.init(name: bytes("user.ab"), value: [0, 10, 255])])
        let far = TarEntry(.characterDevice, bytes("c"), modified: (1 << 40, 5), device: (0x1ff, 0x1fffff))
        let found = try scratch.entries(scratch.archive([(entry, []), (far, [])]))
        #expect(found.map(\.entry) == [far, entry].reversed())
    }

    /// GNU tar writes numbers that do not fit in binary.
    @Test func binaryNumbersAreRead() throws {
        let scratch = try Scratch()
        try scratch.shell(
            "mkdir d && chown 3000000000:3000000001 d && touch -d @-5 d && tar --format=gnu --numeric-owner -cf archive.tar d"
        )
        let entry = try #require(try scratch.entries(scratch.open("archive.tar")).first?.entry)
        #expect(entry.uid == 3_000_000_000 && entry.gid == 3_000_000_001 && entry.modified == (-5, 0))
    }

    @Test func aFileOfMoreThanEightGiBIsAnnounced() throws {
        let scratch = try Scratch()
        try scratch.shell("truncate -s 9G huge && tar -cf - huge | head -c 1048576 > gnu.tar")
        try scratch.shell("tar --format=posix -cf - huge | head -c 1048576 > pax.tar")
        for name in ["gnu.tar", "pax.tar"] {
            let reader = TarReader(try scratch.open(name))
            #expect(try reader.next()?.size == 9 << 30)
            #expect(throws: ArchiveError.self) { try reader.next() }
        }
    }

    @Test func extendedAttributesAreKept() throws {
        let scratch = try Scratch()
        try scratch.write("file", "x")
        let file = try scratch.open("file")
        // Not on every file system.
        guard martlet_fsetxattr(file.raw, "user.color", [1, 0, 61, 10] as [UInt8], 4, 0) == 0 else { return }
        try scratch.unpack(scratch.pack("file"))
        var value = [UInt8](repeating: 0, count: 16)
        let copy = try scratch.open("in/file")
        #expect(martlet_fgetxattr(copy.raw, "user.color", &value, 16) == 4)
        #expect(value.prefix(4) == [1, 0, 61, 10])
    }
}
