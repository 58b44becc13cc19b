import Glibc
import Testing

/// What takes long to make once and lies in the cache ever after. It is made on the host before the tests run in the lab,
/// where nothing is kept, nothing can be fetched, and compiling takes a minute.
@Suite struct PreparationTests {
    @Test(arguments: ["features", "fileops", "frames", "memory", "pattern", "events", "sockets"])
    func theProgramsAreCompiled(name: String) throws {
        #expect(access(try Program.path(name), X_OK) == 0)
    }

    @Test(
        .enabled(if: Lab.everything, Lab.isLong),
        .enabled(if: Lab.program("mmdebstrap") != nil, "no mmdebstrap in PATH"))
    func theDebianRootIsMade() throws {
        #expect(access("\(try Rootfs.debianDirectory())/usr/bin/perl", X_OK) == 0)
    }

    @Test func promtoolIsThereOrMissingIsSaid() {
        if let program = Containers.MetricsTests.promtool { #expect(access(program, X_OK) == 0) }
    }

    @Test func theDescriptorsOfCRIAreMade() throws {
        #expect(access(try CRIClient.descriptors(), R_OK) == 0)
    }
}
