import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Testing

@testable import Sandbox

@Suite final class SpecWriterTests {
    private let bundle: String

    init() throws {
        var template = Array("/tmp/martlet-spec.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        bundle = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { try? FileManager.default.removeItem(atPath: bundle) }

    private func written(_ changes: SpecChanges) throws -> Spec {
        unlink("\(bundle)/config.json")
        try writeStandardSpec(bundle: bundle, changes: changes)
        let data = try Data(contentsOf: URL(fileURLWithPath: "\(bundle)/config.json"))
        return try JSONDecoder().decode(Spec.self, from: data)
    }

    @Test func withoutChangesItIsTheStandardSpecification() throws {
        #expect(try written(SpecChanges()) == Spec.standard())
    }

    @Test func eachChangeChangesItsFieldAlone() throws {
        var wanted = Spec.standard()
        wanted.process?.args = ["/bin/echo", "a b", "--x", ""]
        #expect(try written(SpecChanges(arguments: ["/bin/echo", "a b", "--x", ""])) == wanted)
        wanted = Spec.standard()
        wanted.process?.terminal = false
        #expect(try written(SpecChanges(terminal: false)) == wanted)
        wanted = Spec.standard()
        wanted.root?.path = "/somewhere/else"
        #expect(try written(SpecChanges(rootfs: "/somewhere/else")) == wanted)
    }

    @Test func anExistingFileIsLeftAsItIs() throws {
        let before = try written(SpecChanges(rootfs: "/before"))
        let error = #expect(throws: SystemError.self) { try writeStandardSpec(bundle: bundle) }
        #expect(error?.errno == .fileExists)
        let data = try Data(contentsOf: URL(fileURLWithPath: "\(bundle)/config.json"))
        #expect(try JSONDecoder().decode(Spec.self, from: data) == before)
    }
}
