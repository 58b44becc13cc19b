import Testing

@testable import OCISpec

@Suite struct ValidationTests {
    private func reasons(_ edit: (inout Spec) -> Void) -> [String] {
        var spec = Spec.standard()
        edit(&spec)
        return spec.problems().map(\.description)
    }

    @Test func theStandardSpecIsValid() {
        #expect(Spec.standard().problems() == [])
    }

    @Test func eachProblemNamesItsField() {
        #expect(
            reasons { $0.ociVersion = "2.0" } == [
                "ociVersion: \"2.0\" is not a version 1.x of the runtime specification"
            ])
        #expect(reasons { $0.process = nil } == ["process: missing"])
        #expect(reasons { $0.root = nil } == ["root: missing"])
        #expect(reasons { $0.root?.path = "" } == ["root.path: must not be empty"])
        #expect(reasons { $0.process?.args = [] } == ["process.args: must not be empty"])
        #expect(reasons { $0.process?.cwd = "tmp" } == ["process.cwd: \"tmp\" is not an absolute path"])
        #expect(reasons { $0.process?.cwd = "" } == ["process.cwd: must not be empty"])
        #expect(reasons { $0.process?.env = ["A=", "B"] } == ["process.env[1]: \"B\" has no '='"])
        #expect(reasons { $0.process?.env = ["A=\u{301}b"] } == [])
        #expect(reasons { $0.process?.env = ["=x"] } == ["process.env[0]: \"=x\" has no name before '='"])
        #expect(reasons { $0.process?.args[0] = "a\0b" } == ["process.args[0]: has a NUL character"])
        #expect(reasons { $0.process?.user.umask = 0o1000 } == ["process.user.umask: 512 is more than 0777"])
        #expect(reasons { $0.process?.user.uid = .max } == ["process.user.uid: 4294967295 is not an id"])
        #expect(
            reasons { $0.process?.consoleSize = ConsoleSize(height: 65536, width: 80) } == [
                "process.consoleSize.height: 65536 is more than 65535"
            ])
        #expect(
            reasons { $0.process?.oomScoreAdj = 1001 } == ["process.oomScoreAdj: 1001 is not between -1000 and 1000"])
        #expect(reasons { $0.process?.capabilities?.ambient = ["CAP_FLY"] } == [], "it is warned of")
        #expect(reasons { $0.hostname = String(repeating: "x", count: 65) } == ["hostname: longer than 64 bytes"])
        #expect(reasons { $0.mounts = [Mount(destination: "tmp", type: "tmpfs")] } == [], "it is warned of")
        #expect(
            reasons { $0.mounts = [Mount(destination: "", type: "tmpfs")] } == [
                "mounts[0].destination: must not be empty"
            ])
        #expect(
            reasons {
                $0.mounts = [Mount(destination: "/a", type: "bind", source: "/b")]
                $0.mounts[0].uidMappings = [.init(containerID: 0, hostID: 1, size: 1)]
            } == ["mounts[0].gidMappings: missing, the other ids are mapped"])
        #expect(
            reasons { $0.mounts = [Mount(destination: "/a", options: ["rbind"])] } == [
                "mounts[0].source: missing, a bind mount needs one"
            ])
        #expect(
            reasons { $0.mounts = [Mount(destination: "/a", source: "/b")] } == [
                "mounts[0].type: missing, and no option bind or rbind"
            ])
        #expect(reasons { $0.linux?.maskedPaths = ["x"] } == ["linux.maskedPaths[0]: \"x\" is not an absolute path"])
        #expect(
            reasons { $0.linux?.rootfsPropagation = "odd" } == [
                "linux.rootfsPropagation: \"odd\" is not a mount propagation"
            ])
    }

    @Test func limitsAreKnownOrderedAndGivenOnce() {
        #expect(
            reasons { $0.process?.rlimits = [Rlimit(type: "RLIMIT_X", hard: 1, soft: 1)] } == [
                "process.rlimits[0].type: \"RLIMIT_X\" is not a resource limit"
            ])
        #expect(
            reasons { $0.process?.rlimits = [Rlimit(type: "RLIMIT_CPU", hard: 1, soft: 2)] } == [
                "process.rlimits[0].soft: 2 is more than the hard limit 1"
            ])
        let limit = Rlimit(type: "RLIMIT_NOFILE", hard: .max, soft: .max)
        #expect(
            reasons { $0.process?.rlimits = [limit, limit] } == [
                "process.rlimits[1].type: RLIMIT_NOFILE is given twice"
            ])
    }

    @Test func namespacesAreKnownAndGivenOnce() {
        #expect(
            reasons { $0.linux?.namespaces.append(.init(.pid)) } == ["linux.namespaces[6].type: pid is given twice"])
        #expect(
            reasons { $0.linux?.namespaces[0].type = "net" } == [
                "linux.namespaces[0].type: \"net\" is not a namespace"
            ])
    }

    @Test func sysctlNamesCannotLeaveProcSys() {
        for good in ["net.ipv4.ip_forward", "kernel/shm_rmid_forced", "net.ipv4.conf.eth0/1.forwarding"] {
            #expect(Linux.isSysctlName(good), "\(good)")
        }
        for bad in ["", "kernel", "../etc/passwd", "net..x", "/net.x", "net.x/", "net.x y", "a.b\0"] {
            #expect(!Linux.isSysctlName(bad), "\(bad)")
        }
    }

    @Test func devicesHavePossibleNumbers() {
        #expect(
            reasons { $0.linux?.devices = [.init(path: "/dev/x", type: "z", major: -1, minor: 1 << 20)] } == [
                "linux.devices[0].type: \"z\" is not c, u, b or p", "linux.devices[0].major: -1 is not a device number",
                "linux.devices[0].minor: 1048576 is not a device number",
            ])
    }

    @Test func allProblemsComeInOneLine() {
        var spec = Spec.standard()
        spec.process?.args = []
        spec.process?.cwd = "x\ny"
        #expect(throws: SpecError.self) { try spec.validate() }
        do { try spec.validate(file: "b/config.json") } catch {
            #expect(
                error.description
                    == #"b/config.json: process.args: must not be empty; process.cwd: "x\ny" is not an absolute path"#)
        }
    }

    @Test(arguments: ["a", "A-1_2+3.x", "..a", String(repeating: "x", count: 255)])
    func containerIDsThatAreGood(_ id: String) throws {
        #expect(try ContainerID(id).value == id)
    }

    @Test(arguments: ["", ".", "..", "a/b", "../x", "a b", "a\0", "é", "a\n", String(repeating: "x", count: 256)])
    func containerIDsThatAreBad(_ id: String) {
        #expect(throws: SpecError.self) { try ContainerID(id) }
    }

    @Test func aBadContainerIDSaysWhy() {
        do { _ = try ContainerID("a/b") } catch {
            #expect(
                error.description
                    == "container id \"a/b\": must not have '/': only letters, digits, _ + - . are allowed")
        }
    }
}
