import Archive
import CLinux
import Glibc
import LinuxSystem
import Testing

/// Archives that want to do harm where they are unpacked on the host: nothing outside of the destination changes.
@Suite struct HostileArchiveTests {
    private static func file(_ name: String) -> (TarEntry, [UInt8]) { (TarEntry(.file, bytes(name)), bytes("evil")) }
    private static func link(_ name: String, to target: String) -> (TarEntry, [UInt8]) {
        (TarEntry(.symbolicLink, bytes(name), mode: 0o777, linkTarget: bytes(target)), [])
    }
    private static func hardLink(_ name: String, to target: String) -> (TarEntry, [UInt8]) {
        (TarEntry(.hardLink, bytes(name), linkTarget: bytes(target)), [])
    }
    private static func directory(_ name: String, mode: UInt32 = 0o755) -> (TarEntry, [UInt8]) {
        (TarEntry(.directory, bytes(name), mode: mode), [])
    }

    /// `OUT` stands for the directory that must stay as it is.
    struct Attack: CustomTestStringConvertible, Sendable {
        let testDescription: String
        let entries: [(TarEntry, [UInt8])]
    }

    static let refused: [Attack] = [
        Attack(testDescription: "up", entries: [file("../outside/new")]),
        Attack(testDescription: "up in the middle", entries: [file("a/../../outside/new")]),
        Attack(testDescription: "through a link", entries: [link("a", to: "../outside"), file("a/new")]),
        Attack(testDescription: "through an absolute link", entries: [link("a", to: "OUT"), file("a/new")]),
        Attack(
            testDescription: "through two links",
            entries: [link("a", to: ".."), link("b", to: "a/outside"), file("b/new")]),
        Attack(testDescription: "a directory over a link", entries: [link("a", to: "../outside"), directory("a")]),
        Attack(
            testDescription: "a directory through a link", entries: [link("a", to: "../outside"), directory("a/new")]),
        Attack(
            testDescription: "a link through a link", entries: [link("a", to: "../outside"), link("a/new", to: "x")]),
        Attack(testDescription: "a hard link up", entries: [hardLink("a", to: "../outside/secret")]),
        Attack(
            testDescription: "a hard link through a link",
            entries: [link("a", to: "../outside"), hardLink("b", to: "a/secret")]),
        Attack(testDescription: "a hard link to nothing", entries: [hardLink("b", to: "no")]),
        Attack(testDescription: "a hard link to a directory", entries: [directory("a"), hardLink("b", to: "a")]),
        Attack(testDescription: "a hard link to the destination", entries: [hardLink("b", to: ".")]),
        Attack(testDescription: "a file over a directory", entries: [directory("a"), file("a")]),
        Attack(testDescription: "below a file", entries: [file("a"), file("a/b")]),
        Attack(testDescription: "a long component", entries: [file(String(repeating: "x", count: 300))]),
        Attack(testDescription: "a long path", entries: [file(String(repeating: "x/", count: 3000) + "y")]),
    ]

    @Test(arguments: refused) func harmIsRefused(attack: Attack) throws {
        let scratch = try Scratch()
        let entries = attack.entries.map { entry, content in
            var entry = entry
            if entry.linkTarget == bytes("OUT") { entry.linkTarget = bytes(scratch.outside) }
            return (entry, content)
        }
        #expect(throws: (any Error).self) { try scratch.unpack(scratch.archive(entries)) }
        try expectUnharmed(scratch)
    }

    private func expectUnharmed(_ scratch: Scratch, sourceLocation: SourceLocation = #_sourceLocation) throws {
        #expect(scratch.read("outside/secret") == "kept", sourceLocation: sourceLocation)
        #expect(try directoryNames(scratch.outside) == ["secret"], sourceLocation: sourceLocation)
        #expect(scratch.status("outside/secret")?.st_nlink == 1, sourceLocation: sourceLocation)
        #expect(scratch.status("outside")?.st_mode == S_IFDIR | 0o755, sourceLocation: sourceLocation)
    }

    @Test func absoluteNamesStayBelow() throws {
        let scratch = try Scratch()
        try scratch.unpack(scratch.archive([Self.file("/etc/new"), Self.file("//x/./y")]))
        #expect(scratch.read("in/etc/new") == "evil" && scratch.read("in/x/y") == "evil")
    }

    @Test func aFileReplacesALinkAndIsNotWrittenThroughIt() throws {
        let scratch = try Scratch()
        try scratch.shell("ln -s ../outside/secret in/a && ln outside/secret in/b")
        try scratch.unpack(
            scratch.archive([
                Self.file("a"), Self.file("b"), Self.link("c", to: "../outside/secret"), Self.file("c"),
            ]))
        for name in ["a", "b", "c"] { #expect(scratch.read("in/\(name)") == "evil") }
        try expectUnharmed(scratch)
    }

    @Test func linksAreMadeAndNotFollowed() throws {
        let scratch = try Scratch()
        try scratch.unpack(scratch.archive([Self.link("a", to: scratch.outside), Self.link("b", to: "../../../..")]))
        #expect(symbolicLink(scratch.inside + "/a") == scratch.outside)
        #expect(symbolicLink(scratch.inside + "/b") == "../../../..")
    }

    @Test func devicesAreLeftOutAndNamed() throws {
        let scratch = try Scratch()
        let left = try scratch.unpack(
            scratch.archive([
                Self.directory("dev"),
                (TarEntry(.characterDevice, bytes("dev/mem\u{1b}[2J"), device: (1, 1)), []),
                (TarEntry(.blockDevice, bytes("dev/sda"), device: (8, 0)), []),
                (TarEntry(.fifo, bytes("dev/fifo")), []), Self.file("dev/file"),
            ]))
        #expect(left.count == 3 && left[1] == "dev/sda" && !left[0].contains("\u{1b}"))
        #expect(try directoryNames(scratch.inside + "/dev") == ["file"])
    }

    @Test func programsGetNoRights() throws {
        let scratch = try Scratch()
        var program = TarEntry(.file, bytes("su"), mode: 0o6755, uid: 12, gid: 34)
        program.attributes = [
            .init(name: bytes("security.capability"), value: [1, 0, 0, 2] + [UInt8](repeating: 255, count: 16))
        ]
        let entries = [(program, bytes("x")), Self.directory("d", mode: 0o7777)]
        try scratch.unpack(scratch.archive(entries))
        #expect(scratch.status("in/su")?.st_mode == S_IFREG | 0o755 && scratch.status("in/su")?.st_uid == geteuid())
        #expect(scratch.status("in/d")?.st_mode == S_IFDIR | 0o1777)
        var value = [UInt8](repeating: 0, count: 64)
        let file = try scratch.open("in/su")
        #expect(martlet_fgetxattr(file.raw, "security.capability", &value, 64) == -1)
        guard geteuid() == 0 else { return }
        try scratch.unpack(scratch.archive(entries), to: "in", .directory(isMade: false), .host(keepsOwners: true))
        #expect(scratch.status("in/su")?.st_mode == S_IFREG | 0o755 && scratch.status("in/su")?.st_uid == 12)
    }

    /// What is copied under another name must be all that the archive has.
    @Test func nothingBesideWhatIsCopiedIsMade() throws {
        let scratch = try Scratch()
        #expect(throws: ArchiveError.self) {
            try scratch.unpack(
                scratch.archive([Self.directory("a"), Self.file("a/x"), Self.file("other")]), to: "in/new", .place)
        }
        #expect(throws: ArchiveError.self) {
            try scratch.unpack(scratch.archive([Self.file("f"), Self.file("g")]), to: "in/only", .place)
        }
        #expect(try directoryNames(scratch.inside).sorted() == ["new", "only"])
    }

    // MARK: The format

    private static func block(_ edit: (inout [UInt8]) -> Void = { _ in }, isSealed: Bool = true) -> [UInt8] {
        var block = [UInt8](repeating: 0, count: 512)
        func set(_ text: String, at offset: Int) {
            for (i, byte) in text.utf8.enumerated() { block[offset + i] = byte }
        }
        set("name", at: 0)
        set("0000644", at: 100)
        set("0000000", at: 108)
        set("0000000", at: 116)
        set("00000000000", at: 124)
        set("00000000000", at: 136)
        set("0", at: 156)
        set("ustar", at: 257)
        edit(&block)
        if isSealed {
            set("        ", at: 148)
            let sum = String(block.reduce(0) { $0 + Int($1) }, radix: 8)
            set(String(repeating: "0", count: 6 - sum.utf8.count) + sum + "\0 ", at: 148)
        }
        return block
    }

    private static func set(_ text: String, at offset: Int) -> (inout [UInt8]) -> Void {
        { block in for (i, byte) in text.utf8.enumerated() { block[offset + i] = byte } }
    }

    /// An extended header with this body.
    private static func pax(_ body: String, type: String = "x", size: Int? = nil) -> [UInt8] {
        let length = String(size ?? body.utf8.count, radix: 8)
        let header = block {
            set(String(repeating: "0", count: 11 - length.utf8.count) + length, at: 124)(&$0)
            set(type, at: 156)(&$0)
        }
        let padding = (512 - body.utf8.count % 512) % 512
        return header + bytes(body) + [UInt8](repeating: 0, count: padding)
    }

    private static let end = [UInt8](repeating: 0, count: 1024)

    static let malformed: [(String, [UInt8])] = [
        ("empty", []), ("text", bytes(String(repeating: "not a tar archive ", count: 100))),
        ("half a block", [UInt8](block().prefix(300))), ("no end", block()),
        ("half a file", block(set("00000001000", at: 124)) + [1, 2, 3]),
        ("wrong checksum", block({ $0[0] = 1 }, isSealed: false) + end),
        ("a size that is no number", block(set("zzzzzzzzzzz", at: 124)) + end),
        ("a negative size", block { for i in 124..<136 { $0[i] = 0xff } } + end),
        (
            "an endless size",
            block { block in
                block[124] = 0x80
                for i in 128..<136 { block[i] = 0x7f }
            } + end
        ),
        (
            "a size of nine bytes",
            block { block in
                block[124] = 0x80
                block[126] = 1
            } + end
        ),
        (
            "an owner of -1",
            block { block in
                block[108] = 0x80
                for i in 112..<116 { block[i] = 0xff }
            } + end
        ),
        ("gzip", [0x1f, 0x8b, 8, 0] + end), ("zstd", [0x28, 0xb5, 0x2f, 0xfd] + end),
        ("sparse", block(set("S", at: 156)) + end), ("unknown type", block(set("M", at: 156)) + end),
        ("pax: a huge header", pax("", size: 1 << 30) + end),
        ("pax: no length", pax("path=x\n") + block() + end), ("pax: a short length", pax("3 path=x\n") + block() + end),
        ("pax: a long length", pax("99 path=x\n") + block() + end),
        ("pax: an endless length", pax("99999999999999999999 path=x\n") + block() + end),
        ("pax: no key", pax("8 pathx\n") + block() + end), ("pax: a zero byte", pax("12 path=x\0y\n") + block() + end),
        ("pax: a size", pax("11 size=-1\n") + block() + end), ("pax: a time", pax("13 mtime=1.x\n") + block() + end),
        ("pax: sparse", pax("22 GNU.sparse.major=1\n") + block() + end),
        ("headers without end", Array(repeating: pax("10 path=x\n"), count: 40).flatMap { $0 } + block() + end),
        ("headers before the end", pax("10 path=x\n")), ("an endless name", pax("", type: "L", size: 1 << 30) + end),
    ]

    @Test(arguments: malformed.map(\.0)) func whatIsNoArchiveIsRefused(name: String) throws {
        let scratch = try Scratch()
        let archive = try #require(Self.malformed.first { $0.0 == name }?.1)
        #expect(throws: ArchiveError.self) { try scratch.unpack(scratch.file(archive)) }
        // What came before the fault was whole.
        #expect(try directoryNames(scratch.inside) == (name == "no end" ? ["name"] : []))
    }

    @Test func aHeaderByItselfIsGood() throws {
        let scratch = try Scratch()
        try scratch.unpack(scratch.file(Self.pax("15 path=a/b/c\n\n") + Self.block() + Self.end))
        try scratch.unpack(scratch.file(Self.pax("a/long", type: "L") + Self.block() + Self.end))
        #expect(scratch.status("in/a/long") != nil)
    }

    /// Bytes of a good archive are changed at random: whatever comes of it stays inside, and nothing traps.
    @Test func brokenArchivesStayInside() throws {
        var random = SystemRandomNumberGenerator()
        let seed = UInt64.random(in: 0 ... .max, using: &random)
        var generator = Generator(state: seed)
        let scratch = try Scratch()
        let good = try scratch.archive([
            Self.directory("d"), Self.file("d/f"), Self.link("d/l", to: "../../outside"),
            Self.file("d/" + String(repeating: "n", count: 150)), Self.hardLink("h", to: "d/f"),
        ])
        let bytes = try scratch.bytes(good)
        for _ in 0..<200 {
            var broken = bytes
            for _ in 0..<Int.random(in: 1...6, using: &generator) {
                broken[Int.random(in: 0..<broken.count, using: &generator)] = .random(in: 0...255, using: &generator)
            }
            Self.reseal(&broken)
            _ = try? scratch.unpack(scratch.file(broken), to: "in/w", .directory(isMade: true))
            try expectUnharmed(scratch)
            if scratch.status("in/w") != nil { try scratch.shell("chmod -R u+rwx in; rm -rf in/w") }
        }
        #expect(scratch.read("outside/secret") == "kept", "seed \(seed)")
    }

    /// Makes the checksums right again, of whatever lies where headers may lie: else hardly any change would be looked at.
    private static func reseal(_ bytes: inout [UInt8]) {
        for start in stride(from: 0, to: bytes.count - 511, by: 512) {
            let looksLikeHeader = bytes[start + 257..<start + 262].elementsEqual("ustar".utf8)
            if !looksLikeHeader { continue }
            for index in start + 148..<start + 156 { bytes[index] = 32 }
            let sum = String(bytes[start..<start + 512].reduce(0) { $0 + Int($1) }, radix: 8)
            let text = String(repeating: "0", count: 6 - sum.utf8.count) + sum + "\0"
            for (index, byte) in text.utf8.enumerated() { bytes[start + 148 + index] = byte }
        }
    }
}

/// xorshift64*: a run can be repeated by its seed.
private struct Generator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        if state == 0 { state = 1 }
        state ^= state >> 12
        state ^= state << 25
        state ^= state >> 27
        return state &* 2_685_821_657_736_338_717
    }
}

extension Scratch {
    /// All bytes of a file.
    func bytes(_ file: SharedDescriptor) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(try file.information().st_size))
        _ = try bytes.withUnsafeMutableBytes { try readAll(into: $0, from: file.raw, at: 0, "archive") }
        return bytes
    }
}
