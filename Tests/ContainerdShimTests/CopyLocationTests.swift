import Sandbox
import Testing

@testable import PodService

/// What the arguments of `martlet pod cp` mean.
@Suite struct CopyLocationTests {
    @Test(arguments: [
        ("pod:/etc/passwd", CopyLocation.container(name: "pod", path: "/etc/passwd")),
        ("pod:etc/", .container(name: "pod", path: "/etc/")), ("pod:", .container(name: "pod", path: "/")),
        ("a:b:c", .container(name: "a", path: "/b:c")), ("-", .archive), ("file", .host("/here/file")),
        ("/a:b", .host("/a:b")), ("./a:b", .host("/here/./a:b")), ("../x", .host("/here/../x")),
        (":x", .host("/here/:x")), ("dir/", .host("/here/dir/")), (".", .host("/here/.")),
    ]) func anArgumentNamesAPlace(argument: String, place: CopyLocation) throws {
        #expect(try CopyLocation(argument, directory: "/here") == place)
    }

    @Test(arguments: ["", "a\0b"]) func whatIsNoPathIsRefused(argument: String) {
        #expect(throws: SandboxError.self) { try CopyLocation(argument, directory: "/here") }
    }

    @Test func aContainerIsChosenOrNamed() throws {
        #expect(try ContainerFinder.choose(["one"], nil, in: "pod") == "one")
        #expect(try ContainerFinder.choose(["app-1", "app-2", "pause"], "pause", in: "pod") == "pause")
        #expect(try ContainerFinder.choose(["app-1", "app-10"], "app-1", in: "pod") == "app-1")
        #expect(try ContainerFinder.choose(["app-1", "other"], "app", in: "pod") == "app-1")
        let refused: [([String], String?)] = [
            ([], nil), (["a", "b"], nil), (["a"], "b"), (["ab", "ac"], "a"), (["a"], ""),
        ]
        for (ids, wanted) in refused {
            #expect(throws: SandboxError.self) { try ContainerFinder.choose(ids, wanted, in: "pod") }
        }
    }

    @Test func anEndOfAPipeIsTakenOnce() throws {
        let pipe = try PipeEnds()
        _ = try (pipe.takeReading(), pipe.takeWriting())
        #expect(throws: (any Error).self) { try pipe.takeReading() }
        #expect(throws: (any Error).self) { try pipe.takeWriting() }
    }
}
