import CLinux
import Glibc
import LinuxSystem
import Logging

/// The resolvers on loopback addresses of the pod's network namespace that its containers' /etc/resolv.conf names, as docker's
/// 127.0.0.11: each is reached from the guest by the same address.
actor PodResolvers {
    /// As the agent knows one.
    struct Resolver: Sendable, Equatable {
        var address: IPAddress
        var streamTarget: UInt32
        var datagramTarget: UInt32
    }

    private static let port: UInt16 = 53

    private let targets: PodTargets
    private let namespace: NetworkNamespace?
    private let agent: GuestAgent
    private let logger: Logger
    private var files: [String: ResolverFile] = [:]
    private var known: [Resolver] = []
    private let updates = OneAtATime()

    init(_ targets: PodTargets, namespace: NetworkNamespace?, agent: GuestAgent, logger: Logger) {
        self.targets = targets
        self.namespace = namespace
        self.agent = agent
        self.logger = logger
    }

    func add(_ plan: SandboxPlan.Container) { files[plan.id] = ResolverFile(plan) }

    func remove(_ container: String) { files[container] = nil }

    /// Looks at the files and the namespace, and tells the agent what has changed. To be called when a container is about to be
    /// started, and when the namespace has changed: engines start a resolver with the first network that has one.
    func update() async {
        do { try await updates.run { try await self.converge() } } catch {
            logger.warning("network: the container's resolvers do not reach the guest: \(error)")
        }
    }

    private func converge() async throws {
        guard let namespace else { return }
        let files = Array(files.values)
        let addresses = try await onThread("resolvers") {
            try Set(files.flatMap { $0.loopbackServers() }).filter { address in
                try namespace.run { () throws(SystemError) in Self.isServed(InternetAddress(address, port: Self.port)) }
            }
        }
        if addresses == Set(known.map(\.address)) { return }
        let (kept, gone) = (
            known.filter { addresses.contains($0.address) }, known.filter { !addresses.contains($0.address) }
        )
        var fresh: [Resolver] = []
        do {
            for address in addresses.subtracting(kept.map(\.address)) {
                let server = InternetAddress(address, port: Self.port)
                fresh.append(
                    Resolver(
                        address: address, streamTarget: try await targets.add(.stream(server), container: nil),
                        datagramTarget: try await targets.add(.datagrams(server), container: nil)))
            }
            try await agent.updateResolvers(kept + fresh)
        } catch {
            forget(fresh)
            throw error
        }
        known = kept + fresh
        forget(gone)
        logger.debug("network: resolvers \(known.map(\.address))")
    }

    private func forget(_ resolvers: [Resolver]) {
        targets.remove(Set(resolvers.flatMap { [$0.streamTarget, $0.datagramTarget] }))
    }

    /// Whether something answers there: it takes a connection, which rules of the namespace may lead elsewhere, or has the UDP
    /// port.
    private static func isServed(_ server: InternetAddress) -> Bool {
        if (try? server.connected(SOCK_STREAM, within: .seconds(1)).raw) != nil { return true }
        do throws(SystemError) {
            _ = try server.bound(SOCK_DGRAM)
            return false
        } catch { return error.errno == .addressInUse }
    }
}
