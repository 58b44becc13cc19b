import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Testing

@testable import Sandbox

/// Which pod a container belongs to. The tests use other files in the place of network namespaces: only their identities count.
@Suite final class PodMembershipTests {
    private let root: String

    init() throws {
        var template = Array("/tmp/martlet-member.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        root = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { try? FileManager.default.removeItem(atPath: root) }

    private func membership(
        _ annotations: [String: String] = [:], network: String = "", id: String = "c", namespace: String = ""
    ) throws -> PodMembership {
        try PodMembership(id: id, namespace: namespace, annotations: annotations, networkPath: network, root: root)
    }

    private func file(_ name: String) throws -> String {
        let path = "\(root)/.\(name)"
        _ = try OwnedDescriptor.open(path, O_WRONLY | O_CREAT, mode: 0o600)
        return path
    }

    /// A pod in a network namespace. It runs as long as its lock is held.
    private func pod(
        _ id: String, network: String? = nil, namespace: String? = nil
    ) throws -> (directory: StateDirectory, lock: SharedDescriptor, socket: String, listener: SharedDescriptor) {
        let own = namespace.map { StateDirectory.root(ofNamespace: $0, below: root) } ?? root
        let directory = StateDirectory(root: own, id: id)
        let lock = try directory.create()
        let listeners = try directory.listen(
            below: root, network: network.flatMap { NamespaceIdentity(path: $0) })
        return (directory, lock, listeners.socket, listeners.services)
    }

    @Test func annotationsNameAPod() throws {
        func named(_ annotations: [String: String], id: String = "c") throws -> PodMembership.Named? {
            try membership(annotations, id: id).named
        }
        #expect(try named([:]) == nil)
        #expect(try named(["io.containerd.runc.v2.group": "g"]) == .init(id: "g", canBeMade: true))
        #expect(try named(["io.containerd.runc.v2.group": ""]) == nil)
        // Kubernetes makes the pod before its containers.
        let member = ["io.kubernetes.cri.sandbox-id": "s", "io.containerd.runc.v2.group": "g"]
        #expect(try named(member) == .init(id: "s", canBeMade: false))
        #expect(try named(["io.kubernetes.cri-o.SandboxID": "s"]) == .init(id: "s", canBeMade: false))
        #expect(try named(["io.kubernetes.cri.sandbox-id": "s"], id: "s") == nil)
        // podman writes it for pods that share no namespace too.
        #expect(try named(["io.kubernetes.cri-o.SandboxID": "s", "io.container.manager": "libpod"]) == nil)
        #expect(throws: SpecError.self) { try named(["io.containerd.runc.v2.group": "a/b"]) }
    }

    @Test func aNamedPodIsOneOfTheSameEngine() throws {
        let group = ["io.containerd.runc.v2.group": "g"]
        #expect(try membership(group, namespace: "n").answer() == .make(id: "g"))
        #expect(
            try membership(["io.kubernetes.cri.sandbox-id": "g"], namespace: "n").answer() == .missing(id: "g"))
        let (directory, lock, socket, listener) = try pod("g", namespace: "n")
        #expect(try membership(group, namespace: "n").answer() == .join(id: "g", directory, socket: socket))
        #expect(try membership(group, namespace: "m").answer() == .make(id: "g"))
        directory.markEnding()
        #expect(try membership(group, namespace: "n").answer() == .wait(id: "g"))
        withExtendedLifetime((lock, listener)) {}
    }

    @Test func aNetworkNamespaceIsThatOfAPodByAnyPath() throws {
        let (network, other) = (try file("net"), try file("other"))
        let link = "\(root)/.link"
        #expect(symlink(network, link) == 0)
        #expect(try membership(network: network).answer() == .make(id: "c"))
        let (directory, lock, socket, listener) = try pod("x", network: network, namespace: "moby")
        for path in [network, link] {
            #expect(
                try membership(network: path).answer() == .join(id: "x", directory, socket: socket),
                "the command line's container joins containerd's pod")
        }
        #expect(try membership(network: other).answer() == .make(id: "c"))
        #expect(try membership(network: "/nonexistent").answer() == .make(id: "c"))
        // An annotation comes first.
        #expect(
            try membership(["io.kubernetes.cri.sandbox-id": "s"], network: network).answer() == .missing(id: "s"))
        withExtendedLifetime((lock, listener)) {}
    }

    @Test func theHostsNetworkIsNoPods() throws {
        let host = "/proc/self/ns/net"
        let (_, lock, _, listener) = try pod("x", network: host)
        #expect(try membership(network: host).answer() == .make(id: "c"))
        withExtendedLifetime((lock, listener)) {}
    }

    @Test func aPodThatHasEndedOrIsAboutToIsNotJoined() async throws {
        let network = try file("net")
        var scene: (StateDirectory, SharedDescriptor, String, SharedDescriptor)? = try pod("x", network: network)
        let directory = try #require(scene).0
        directory.markEnding()
        #expect(try membership(network: network).answer() == .wait(id: "x"))
        let claim = Task { [membership = try membership(network: network)] in try await membership.claim() }
        try await Task.sleep(for: .milliseconds(50))
        scene = nil  // its server has ended
        guard case .new("c", let made, _, _) = try await claim.value else {
            Issue.record("not a pod of its own")
            return
        }
        #expect(made.read()?.networkNamespace == NamespaceIdentity(path: network))
        made.sweep()
        directory.sweep()
    }

    /// Containers that name the same network namespace before there is a pod in it.
    @Test func ofSeveralAtOnceOneMakesThePod() async throws {
        let network = try file("net")
        let memberships = try (0..<8).map { try membership(network: network, id: "c\($0)") }
        let claims = try await withThrowingTaskGroup(of: PodMembership.Claim.self) { group in
            for membership in memberships { group.addTask { try await membership.claim() } }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        let made = claims.compactMap { if case .new(let id, _, _, _) = $0 { id } else { nil } }
        let joined = claims.compactMap { if case .joined(let id, _, _) = $0 { id } else { nil } }
        #expect(made.count == 1 && joined == Array(repeating: made.first ?? "", count: 7))
    }

    @Test func aPodOfTheContainersIdIsNotMadeTwice() async throws {
        let (_, lock, _, listener) = try pod("c")
        // The command line's containers have names beside those of pods.
        guard case .new("c-2", let second, _, _) = try await membership().claim() else {
            Issue.record("no other name")
            return
        }
        second.sweep()
        let (_, other, _, others) = try pod("c", namespace: "n")
        let engines = try PodMembership(id: "c", namespace: "n", annotations: [:], networkPath: "", root: root)
        await #expect(throws: SandboxError.self) { try await engines.claim() }
        withExtendedLifetime((lock, listener, other, others)) {}
    }

    @Test func noMoreOfABundleIsReadThanItNeeds() throws {
        let (network, bundle) = (try file("net"), "\(root)/.bundle")
        #expect(mkdir(bundle, 0o700) == 0)
        func membership() throws -> PodMembership {
            try PodMembership(id: "c", namespace: "n", bundle: bundle, root: root)
        }
        #expect(try membership().answer() == .make(id: "c"), "a sandbox without a config.json")
        let text =
            #"{"process": 3, "linux": {"namespaces": [{"type": "pid"}, {"type": "network", "path": "\#(network)"}]}}"#
        let file = try OwnedDescriptor.open("\(bundle)/config.json", O_WRONLY | O_CREAT, mode: 0o600)
        #expect(write(file.raw, text, text.utf8.count) == text.utf8.count)
        #expect(try membership().network == NamespaceIdentity(path: network))
    }
}
