import Glibc
import Testing

@testable import OCISpec

/// A directory that is gone after the test.
final class TemporaryDirectory {
    let path: String

    init() throws {
        var template = Array("/tmp/martlet-spec.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw SpecError.bundle(path: "/tmp", reason: "mkdtemp: \(errno)") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    func write(_ name: String, _ bytes: [UInt8]) throws {
        let file = try #require(fopen("\(path)/\(name)", "w"))
        #expect(fwrite(bytes, 1, bytes.count, file) == bytes.count)
        fclose(file)
    }

    deinit {
        for name in ["config.json", "config.json/x"] { unlink("\(path)/\(name)") }
        rmdir("\(path)/config.json")
        rmdir(path)
    }
}

@Suite struct BundleTests {
    private func failure(_ directory: String) -> String {
        do {
            return "loaded \(try Bundle(directory: directory).directory)"
        } catch {
            return "\(error)"
        }
    }

    @Test func aBundleIsLoadedAndItsRootIsAbsolute() throws {
        let directory = try TemporaryDirectory()
        try directory.write("config.json", JSON.encode(Spec.standard()))
        let bundle = try Bundle(directory: directory.path + "/.")
        #expect(bundle.spec == Spec.standard())
        #expect(bundle.directory == directory.path)
        #expect(bundle.rootPath == directory.path + "/rootfs")
        #expect(bundle.absolute("/x") == "/x")
    }

    @Test func whatIsMissingIsNamed() throws {
        let directory = try TemporaryDirectory()
        #expect(failure("\(directory.path)/none") == "\(directory.path)/none: bundle: No such file or directory")
        #expect(failure(directory.path) == "\(directory.path)/config.json: No such file or directory")
        try directory.write("config.json", Array("{".utf8))
        #expect(
            failure("\(directory.path)/config.json") == "\(directory.path)/config.json: the bundle is not a directory")
        #expect(failure(directory.path).hasPrefix("\(directory.path)/config.json: line 1, column 2: "))
    }

    @Test func onlyARegularFileIsRead() throws {
        let directory = try TemporaryDirectory()
        #expect(mkdir("\(directory.path)/config.json", 0o700) == 0)
        #expect(failure(directory.path) == "\(directory.path)/config.json: not a regular file")
        rmdir("\(directory.path)/config.json")
        #expect(mkfifo("\(directory.path)/config.json", 0o600) == 0)
        #expect(failure(directory.path) == "\(directory.path)/config.json: not a regular file")
    }

    @Test func aHugeFileIsRefused() throws {
        let directory = try TemporaryDirectory()
        try directory.write("config.json", [])
        #expect(truncate("\(directory.path)/config.json", 17 << 20) == 0)
        #expect(failure(directory.path).contains("larger than 16 MiB"))
    }
}
