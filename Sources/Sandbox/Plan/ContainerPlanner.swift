import Glibc
import LinuxSystem
import OCISpec

extension SandboxPlan.Container {
    /// Everything of a container in the guest lies below this directory and its id.
    static let guestDirectory = "/run/martlet/containers"

    /// Turns a validated bundle into what the agent needs: the root file system and each bind mount become a share.
    ///
    /// - Throws: `SandboxError.invalid` when a path of the host does not exist; nothing has been touched then.
    init(id: String, bundle: Bundle) throws {
        let directory = "\(Self.guestDirectory)/\(id)"
        var spec = bundle.spec
        var shares: [SandboxPlan.Share] = []
        let root = try Self.realPath(bundle.rootPath, field: "root.path", mustBe: S_IFDIR)
        let rootReadOnly = spec.root?.readonly ?? false
        shares.append(
            .init(name: "\(id).root", source: root, readOnly: rootReadOnly, mountPoint: "\(directory)/rootfs"))
        spec.root = Root(path: "\(directory)/rootfs", readonly: rootReadOnly)
        for index in spec.mounts.indices where spec.mounts[index].isBind {
            let mount = spec.mounts[index]
            let field = "mounts[\(index)].source (\(mount.destination))"
            let source = try Self.realPath(bundle.absolute(mount.source), field: field, mustBe: nil)
            let share = SandboxPlan.Share(
                name: "\(id).\(index)", source: source, readOnly: mount.options.contains("ro"),
                mountPoint: "\(directory)/mounts/\(index)")
            shares.append(share)
            spec.mounts[index].source = share.mountPoint
        }
        self.init(id: id, shares: shares, spec: spec)
    }

    private static func realPath(_ path: String, field: String, mustBe type: mode_t?) throws -> String {
        guard let resolved = realpath(path, nil) else {
            throw SandboxError.invalid("\(field): \(SystemError.last("resolve", path))")
        }
        defer { free(resolved) }
        var facts = stat()
        guard stat(resolved, &facts) == 0 else {
            throw SandboxError.invalid("\(field): \(SystemError.last("stat", path))")
        }
        let found = facts.st_mode & S_IFMT
        if let type, found != type { throw SandboxError.invalid("\(field): \(path) is not a directory") }
        guard found == S_IFDIR || found == S_IFREG else {
            throw SandboxError.unsupported("\(field): \(path): a bind mount of a device, socket or fifo of the host")
        }
        return String(cString: resolved)
    }
}
