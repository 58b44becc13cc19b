import CLinux
import Glibc
import Jail
import LinuxSystem
import Testing

/// What a process can do that has been taken over.
@Suite(.enabled(if: Probe.isPossible, "needs root, and jail-probe beside the tests"))
struct JailTests {
    /// What succeeds on purpose; docs/security.md has the reasons.
    private static func exceptions(_ kind: JailPlan.Kind) -> Set<String> {
        switch kind {
        case .files: ["setresuid 1000"]
        case .qemu:
            [
                "inotify_init1", "fork", "vfork", "unix socket", "bind an abstract socket", "message queue",
                "shared memory", "kill all",
                "memory that is written and executed", "memory that becomes executable", "become dumpable",
                "outlive the parent",
            ]
        default: []
        }
    }

    @Test(arguments: JailPlan.Kind.allCases) func nothingLeadsOut(_ kind: JailPlan.Kind) throws {
        let lines = try Probe.run(kind, user: 2_000_000_007)
        let last = try #require(lines.last)
        #expect(last.hasPrefix("tried ") && (last.split(separator: " ").last.flatMap { Int($0) } ?? 0) > 80, "\(lines)")
        #expect(Set(lines.dropLast()) == Self.exceptions(kind))
    }

    /// The bars: 40 calls for a thread, 70 for one that serves files. A thread that starts others has what each of them has.
    @Test func filtersAreShort() {
        for kind in JailPlan.Kind.allCases where kind != .qemu {
            for filter in JailPlan(kind, user: 1).filters {
                let limit = filter.thread == "control" ? 80 : filter.thread == "file worker" ? 70 : 40
                #expect(filter.count <= limit, "\(kind) \(filter.thread)")
            }
        }
    }

    @Test func aProcessWithoutAPIDNamespaceIsRefused() throws {
        let (_, control) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let (child, output) = try ChildProcess.withPipe(
            "probe",
            .init(
                executable: Probe.executable, arguments: ["vsock", "1"],
                descriptors: [-1, ChildProcess.pipe, 2, control.raw]))
        #expect(Probe.text(output).contains("no pid namespace of its own"))
        #expect(child.waitForEnd(timeout: .seconds(10)) == .exited(1))
    }
}

/// `jail-probe`, which is beside the tests.
enum Probe {
    static let executable: String = {
        let places = [symbolicLink("/proc/self/exe") ?? ""] + CommandLine.arguments
        let found = places.map { $0.split(separator: "/").dropLast().map { "/" + $0 }.joined() + "/jail-probe" }
        return found.first { access($0, X_OK) == 0 } ?? "jail-probe"
    }()

    static let isPossible: Bool = {
        let possible = geteuid() == 0 && access(executable, X_OK) == 0
        if !possible { print("jails are not tested: that needs root, and \(executable)") }
        return possible
    }()

    /// Runs the probe in the jail of a kind of process.
    static func run(_ kind: JailPlan.Kind, user: UInt32) throws -> [String] {
        let (ours, control) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let (child, output) = try ChildProcess.withPipe(
            "probe",
            .init(
                executable: executable, arguments: [kind.rawValue, "\(user)", "/usr/lib", "/lib64"],
                descriptors: [-1, ChildProcess.pipe, 2, control.raw], diesWithParent: true,
                newPIDNamespace: JailPlan(kind, user: user).namespaces.contains(.pid)))
        let lines = text(output).split(separator: "\n").map(String.init)
        #expect(child.waitForEnd(timeout: .seconds(30)) == .exited(0))
        withExtendedLifetime((ours, control)) {}
        return lines
    }

    static func text(_ output: SharedDescriptor) -> String {
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = read(output.raw, &buffer, buffer.count)
            if count <= 0 { return String(decoding: text, as: UTF8.self) }
            text += buffer.prefix(count)
        }
    }
}
