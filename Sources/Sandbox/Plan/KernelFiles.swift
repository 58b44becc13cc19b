import CLinux
import Glibc
import LinuxSystem

/// procfs and sysfs of the host: through these the file server would act on the host's kernel and processes for a guest.
enum KernelFiles {
    private static let types: Set<String> = ["proc", "sysfs"]
    /// linux/magic.h: PROC_SUPER_MAGIC, SYSFS_MAGIC.
    private static let magics: Set<Int> = [0x9fa0, 0x6265_6572]

    /// Whether an open file is of one of them.
    static func are(at descriptor: Int32) -> Bool {
        var facts = statfs()
        return fstatfs(descriptor, &facts) == 0 && magics.contains(Int(facts.f_type))
    }

    /// Whether a mount is of one of them.
    static func are(in entry: MountEntry) -> Bool { types.contains(entry.type) }

    /// Where one was mounted after the plan was made.
    static func refusal(_ path: String) -> SystemError {
        SystemError("share", path, errno: .notPermitted, detail: "procfs or sysfs of the host")
    }
}

extension [SandboxPlan.Share] {
    /// Refuses shares that have procfs or sysfs of the host in them, their own mounts or ones below that the guest would see.
    ///
    /// - Throws: `SandboxError.unsupported` with the path.
    func refuseKernelFiles() throws {
        let mounts = try MountEntry.all().filter(KernelFiles.are(in:))
        for share in self { try share.refuse(mounts) }
    }
}

extension SandboxPlan.Share {
    /// - Parameter kernelMounts: all mounts of procfs and sysfs.
    fileprivate func refuse(_ kernelMounts: [MountEntry]) throws {
        func refuse(_ path: String) throws {
            let place = path == source ? path : "\(path), below \(source)"
            throw SandboxError.unsupported("\(place): a bind mount of procfs or sysfs of the host")
        }
        let file = try OwnedDescriptor.open(source, martlet_O_PATH)
        if KernelFiles.are(at: file.raw) { try refuse(source) }
        guard mounts == .all else { return }
        let prefix = source == "/" ? "/" : source + "/"
        if let entry = kernelMounts.first(where: { $0.mountPoint.hasPrefix(prefix) }) { try refuse(entry.mountPoint) }
    }
}
