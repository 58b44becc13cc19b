import LinuxSystem
import Logging

/// Follows what the host mounts and unmounts below the sources of bind mounts with `slave` or `rslave` (Kubernetes: mountPropagation
/// HostToContainer): each such mount becomes a share of its own, or goes.
///
/// In the guest the agent's mount of such a share is shared, and the container's a slave of it: the guest's kernel does the rest
/// (mount_namespaces(7)).
actor MountPropagation {
    private let agent: GuestAgent
    private let shares: PodShares
    private let rest: MachineRest
    private let logger: Logger
    /// What is followed, by container.
    private var followed: [String: [SandboxPlan.Share]] = [:]
    /// Mounts that can't be had, by the mount point of the share: nobody tries them again.
    private var refused: [String: Set<MountEntry.Identity>] = [:]
    /// As long as something is followed.
    private var watch: MountWatch?
    /// Between `hold` and `goOn`.
    private var isHeld = false
    private let turns = OneAtATime()

    init(_ agent: GuestAgent, _ shares: PodShares, _ rest: MachineRest, logger: Logger) {
        (self.agent, self.shares, self.rest, self.logger) = (agent, shares, rest, logger)
    }

    /// Follows the mounts of a container from now on; what came since its shares were cloned is mounted first.
    func follow(_ plan: SandboxPlan.Container) async {
        let followed = plan.shares.filter(\.propagates)
        if followed.isEmpty { return }
        do {
            if watch == nil { watch = try MountWatch { [weak self] in Task { await self?.converge() } } }
            let table = try await onThread("mounts") { try MountEntry.all() }
            // A restored container's mounts are known by their paths alone until now.
            for share in followed {
                for (entry, relative) in DetachedMount.below(share.source, in: table) {
                    shares.identify(plan.id, at: share.guestPath(of: relative), as: entry.identity)
                }
            }
            self.followed[plan.id] = followed.filter { isPropagated($0, plan.id, table) }
        } catch { logger.warning("container \(plan.id): later mounts of the host do not appear: \(error)") }
        await converge()
    }

    /// Whether what the host mounts below a source is for others too, as mount(8) has it.
    private func isPropagated(_ share: SandboxPlan.Share, _ container: String, _ table: [MountEntry]) -> Bool {
        let original = shares.mounts(container, at: share.mountPoint).first?.original
        guard let entry = table.first(where: { $0.identity == original }), !entry.propagates else { return true }
        logger.warning(
            "container \(container): later mounts below \(share.source) do not appear: \(entry.mountPoint) is a private mount"
        )
        return false
    }

    /// Follows a container's mounts no longer. Returns when nothing of it is asked of the guest.
    func forget(_ container: String) async {
        guard let shares = followed.removeValue(forKey: container) else { return }
        for share in shares { refused[share.mountPoint] = nil }
        if followed.isEmpty { watch = nil }
        await turns.settle()
    }

    /// Changes nothing until `goOn`.
    func hold() async {
        isHeld = true
        await turns.settle()
    }

    /// Does what was to do since `hold`.
    func goOn() async {
        isHeld = false
        await converge()
    }

    func end() { (followed, watch) = ([:], nil) }

    private func converge() async {
        if !followed.isEmpty { try? await turns.run { try await self.change() } }
    }

    private func change() async throws {
        if isHeld || followed.isEmpty { return }
        let table = try await onThread("mounts") { try MountEntry.all() }
        try await rest.begin()
        for (container, shares) in followed {
            for share in shares { await change(share, of: container, DetachedMount.below(share.source, in: table)) }
        }
        await rest.finish()
    }

    /// - Parameter current: what the host has there.
    private func change(
        _ share: SandboxPlan.Share, of container: String, _ current: [(entry: MountEntry, relative: String)]
    ) async {
        let paths = Dictionary(current.map { ($0.entry.identity, $0.relative) }) { first, _ in first }
        for mount in shares.mounts(container, at: share.mountPoint).dropFirst().reversed()
        where mount.original.map({ paths[$0] == mount.path }) != true {
            await remove(mount.path, share, of: container)
        }
        refused[share.mountPoint]?.formIntersection(paths.keys)
        let held = shares.mounts(container, at: share.mountPoint).compactMap(\.original)
        let known = refused[share.mountPoint, default: []].union(held)
        for (entry, relative) in current where !known.contains(entry.identity) && followed[container] != nil {
            do { try await add(entry, relative, share, of: container) } catch {
                refused[share.mountPoint, default: []].insert(entry.identity)
                logger.warning(
                    "container \(container): mount \(entry.mountPoint) of the host does not appear: \(error)")
            }
        }
    }

    private func add(
        _ entry: MountEntry, _ relative: String, _ share: SandboxPlan.Share, of container: String
    ) async throws {
        let clone = try await onThread("mounts") { try DetachedMount.clone(entry, below: relative, of: share) }
        guard let clone else { return }
        let mount = ShareMount(mount: clone, share: share)
        for storage in try await shares.add([mount], container: container, isLater: true) {
            do { try await agent.mountShare(storage, of: container) } catch {
                await shares.remove(container, at: mount.guestPath)
                throw error
            }
        }
        logger.debug("container \(container): mount \(entry.mountPoint) of the host appears")
    }

    private func remove(_ path: String, _ share: SandboxPlan.Share, of container: String) async {
        do { try await agent.unmountShare(path, at: share.mountPoint, of: container) } catch {
            logger.debug("container \(container): unmount \(share.guestPath(of: path)): \(error)")
        }
        await shares.remove(container, at: share.guestPath(of: path))
    }
}
