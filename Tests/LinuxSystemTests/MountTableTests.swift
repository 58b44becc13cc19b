import Glibc
import LinuxSystem
import Testing

@Suite(.enabled(if: geteuid() == 0, "needs root")) struct MountTableTests {
    /// All below the directory go, one above another too; a neighbour whose path begins alike stays.
    @Test func mountsBelowADirectoryAreTakenAway() throws {
        var template = Array("/tmp/martlet-mounts.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        let directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let inner = "\(directory)/inner a"
        let neighbour = "\(directory)/inner b"
        defer {
            for path in [inner, neighbour] { umount2(path, Int32(MNT_DETACH)) }
            for path in [inner, neighbour, directory] { rmdir(path) }
        }
        for path in [inner, neighbour] { try #require(mkdir(path, 0o755) == 0) }
        for path in [inner, inner, "\(inner)/a", neighbour] {
            mkdir(path, 0o755)
            try #require(mount("none", path, "tmpfs", 0, nil) == 0)
        }
        let own = { try MountEntry.all().map(\.mountPoint).filter { $0.hasPrefix(directory) } }
        #expect(try own().count == 4)
        try MountEntry.detachAll(below: inner)
        #expect(try own() == [inner, inner, neighbour])
        try MountEntry.detachAll(below: directory)
        #expect(try own() == [])
    }
}
