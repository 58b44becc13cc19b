import Glibc
import LinuxSystem
import OCISpec
import Testing

@testable import Sandbox

/// Namespaces that a container shares: with the host, which a virtual machine can't, with the pod, with one container of it.
@Suite struct NamespaceTests {
    private static let type = "io.kubernetes.cri.container-type"

    private func spec(without kind: Linux.Namespace.Kind, type: String? = nil) -> Spec {
        var spec = Spec.standard()
        if let type { spec.annotations = [Self.type: type] }
        spec.linux?.namespaces.removeAll { $0.kind == kind }
        return spec
    }

    private func findings(_ spec: Spec, _ verdict: Unsupported.Verdict = .refuse) -> [Unsupported] {
        var (spec, policy) = (spec, Unsupported.Policy())
        policy.hostNamespaces = verdict
        spec.linux?.removeHostsNamespaces()
        return PodRequest(spec).unsupportedHostNamespaces(spec, policy)
    }

    @Test(arguments: [Linux.Namespace.Kind.network, .pid, .ipc, .uts])
    func aNamespaceThatIsLeftOutIsTheHosts(_ kind: Linux.Namespace.Kind) {
        let found = findings(spec(without: kind))
        #expect(found.map(\.verdict) == [.refuse])
        #expect(found.first?.description.hasPrefix("linux.namespaces: host \(kind): ") == true)
        #expect(findings(spec(without: kind), .warn).map(\.verdict) == [.warn])
    }

    @Test func othersThatAreLeftOutAreNoMatter() {
        #expect(findings(Spec.standard()).isEmpty)
        for kind in [Linux.Namespace.Kind.cgroup, .user, .time] { #expect(findings(spec(without: kind)).isEmpty) }
    }

    @Test func kubernetesNamesAreItsOwn() {
        for (kind, name) in [(Linux.Namespace.Kind.network, "hostNetwork"), (.pid, "hostPID"), (.ipc, "hostIPC")] {
            let found = findings(spec(without: kind, type: "sandbox"))
            #expect(found.map(\.verdict) == [.refuse] && found.first?.reason.hasPrefix("\(name): ") == true)
        }
        // The pod's are named by paths, or left out.
        for kind in [Linux.Namespace.Kind.ipc, .uts] {
            #expect(findings(spec(without: kind, type: "container")).isEmpty)
        }
        #expect(findings(spec(without: .uts, type: "sandbox")).isEmpty)
    }

    /// CRI-O and Docker name the host's own namespaces by paths like any other.
    @Test func theHostsOwnIsThatByWhateverPath() {
        func names(_ kind: Linux.Namespace.Kind, _ path: String) -> [String] {
            var spec = spec(without: kind)
            spec.linux?.namespaces.append(.init(kind, path: path))
            spec.linux?.removeHostsNamespaces()
            return PodRequest(spec).hostNamespaces(spec).map(\.name)
        }
        #expect(names(.network, "/proc/thread-self/ns/net") == ["host network"])
        #expect(names(.ipc, "/proc/self/ns/ipc") == ["host ipc"])
        #expect(names(.ipc, "/proc/self/ns/net") == [], "another one")
        #expect(names(.network, "/proc/\(getpid())/ns/net") == ["host network"])
        // The process stands for a container, though it is in the host's namespace.
        #expect(names(.pid, "/proc/\(getpid())/ns/pid") == [])
        #expect(throws: SandboxError.self) {
            try SandboxPlan.Network.existing(path: "/proc/self/ns/net").check()
        }
    }

    @Test func namespacesAreJoinedInTheGuest() {
        var linux = Linux(namespaces: [
            .init(.ipc, path: "/run/ipcns/1"), .init(.network, path: "/run/netns/1"), .init(.uts, path: "/run/utsns/1"),
            .init(.pid, path: "/proc/7/ns/pid"),
        ])
        #expect(linux.podNamespaces == ["/run/ipcns/1", "/run/utsns/1", "/proc/7/ns/pid"])
        #expect(linux.namespaces.map(\.process) == [nil, nil, nil, 7])
        linux.join(["/run/ipcns/1": .sandbox, "/run/netns/1": .sandbox, "/proc/7/ns/pid": .container("c")])
        #expect(
            linux.namespaces.map(\.path) == [
                "/run/martlet/sandbox/ns/ipc", "/run/netns/1", "/run/utsns/1", "/run/martlet/containers/c/ns/pid",
            ])
        #expect(linux.namespaces.map(\.isGuests) == [true, false, false, true])
        #expect(linux.namespaces[3].container == "c")
    }

    /// The process of a pod that its engine has made by itself is in the host's namespaces.
    @Test func theHostsStandForThoseOfAPodWithoutAContainer() {
        var linux = Linux(namespaces: [
            .init(.ipc, path: "/proc/self/ns/ipc"), .init(.uts, path: "/proc/1/ns/uts"), .init(.pid),
            .init(.pid, path: "/proc/\(getpid())/ns/pid"), .init(.network, path: "/proc/self/ns/net"),
            .init(.ipc, path: "/proc/self/ns/net"),
        ])
        linux.joinSandboxForHosts()
        #expect(linux.namespaces.map(\.isSandboxes) == [true, true, false, false, false, false])
    }

    @Test func oneOfAnotherMachineIsNamed() {
        var spec = Spec.standard()
        spec.linux?.namespaces[0].path = "/proc/123/ns/pid"
        let found = spec.unsupported().map(\.description)
        #expect(found == ["linux.namespaces: pid: /proc/123/ns/pid: a namespace outside the pod's machine"])
    }
}
