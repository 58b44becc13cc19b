/// A property of a configuration that Martlet does not honour.
public struct Unsupported: Sendable, Equatable, CustomStringConvertible {
    public enum Verdict: Sendable { case refuse, warn }

    /// The path in the document: `linux.seccomp`.
    public var field: String
    /// `refuse`: running without it would not be what was asked for. `warn`: engines write it for every container, and
    /// a container in a virtual machine of its own runs as meant without it.
    public var verdict: Verdict
    public var reason: String

    public var description: String { "\(field): \(reason)" }
}

extension Spec {
    /// Every property that is set and not honoured, so that nothing is ignored in silence.
    public func unsupported() -> [Unsupported] {
        var found = Findings()
        found.refuse("domainname", "not applied yet", if: !domainname.isEmpty)
        for (platform, value) in [("solaris", solaris), ("windows", windows), ("vm", vm), ("zos", zos)] {
            found.refuse(platform, "only Linux containers are run", if: value != nil)
        }
        collectHooks(&found)
        for (index, mount) in mounts.enumerated() { mount.collectUnsupported("mounts[\(index)]", &found) }
        found.list += process?.unsupported() ?? []
        linux?.collectUnsupported(&found)
        return found.list
    }

    private func collectHooks(_ found: inout Findings) {
        guard let hooks else { return }
        let points = [
            ("prestart", hooks.prestart), ("createRuntime", hooks.createRuntime),
            ("createContainer", hooks.createContainer), ("startContainer", hooks.startContainer),
            ("poststart", hooks.poststart), ("poststop", hooks.poststop),
        ]
        for (point, programs) in points {
            found.refuse("hooks.\(point)", "hooks are not run yet", if: !programs.isEmpty)
        }
    }
}

extension Process {
    /// As `Spec.unsupported()`, of a process on its own, as an exec gets it. Field names start with `name`.
    public func unsupported(_ name: String = "process") -> [Unsupported] {
        var found = Findings()
        found.warn(
            "\(name).apparmorProfile", "the guest has no AppArmor", if: !["", "unconfined"].contains(apparmorProfile))
        found.warn("\(name).selinuxLabel", "the guest has no SELinux", if: !selinuxLabel.isEmpty)
        found.warn("\(name).oomScoreAdj", "not applied yet", if: (oomScoreAdj ?? 0) != 0)
        found.refuse("\(name).scheduler", "not applied yet", if: scheduler != nil)
        found.refuse("\(name).ioPriority", "not applied yet", if: ioPriority != nil)
        found.refuse("\(name).execCPUAffinity", "not applied yet", if: execCPUAffinity != nil)
        return found.list
    }
}

extension Mount {
    fileprivate func collectUnsupported(_ name: String, _ found: inout Findings) {
        found.refuse("\(name).uidMappings", "mapped ids are not supported yet", if: !uidMappings.isEmpty)
        found.refuse("\(name).gidMappings", "mapped ids are not supported yet", if: !gidMappings.isEmpty)
        for option in options {
            switch option {
            case "idmap", "ridmap": found.refuse("\(name).options", "\(option): mapped ids are not supported yet")
            case "tmpcopyup": found.refuse("\(name).options", "tmpcopyup is not supported yet")
            case "shared", "rshared":
                found.refuse("\(name).options", "\(option): mounts made in the guest can't appear on the host")
            case "slave", "rslave":
                found.warn(
                    "\(name).options", "\(option): later mounts of the host do not appear in the guest yet", if: true)
            default: continue
            }
        }
    }
}

extension Linux {
    /// What the agent makes in every container's /dev (config-linux.md, Default Devices), and what engines list again.
    static let defaultDevices: [String: (major: Int64, minor: Int64)] = [
        "/dev/null": (1, 3), "/dev/zero": (1, 5), "/dev/full": (1, 7), "/dev/random": (1, 8), "/dev/urandom": (1, 9),
        "/dev/tty": (5, 0),
    ]

    fileprivate func collectUnsupported(_ found: inout Findings) {
        found.refuse("linux.uidMappings", "user namespaces are not supported yet", if: !uidMappings.isEmpty)
        found.refuse("linux.gidMappings", "user namespaces are not supported yet", if: !gidMappings.isEmpty)
        collectNamespaces(&found)
        for (index, device) in devices.enumerated() {
            let known = Self.defaultDevices[device.path]
            let isDefault =
                device.type == "c" && known.map { $0.major == device.major && $0.minor == device.minor } == true
            found.refuse(
                "linux.devices[\(index)]", "\(device.path): devices other than the default ones are not supported yet",
                if: !isDefault)
        }
        found.refuse("linux.netDevices", "not supported yet", if: !netDevices.isEmpty)
        found.warn("linux.seccomp", "not applied yet", if: seccomp != nil)
        found.warn("linux.cgroupsPath", "not applied yet", if: !cgroupsPath.isEmpty)
        found.refuse(
            "linux.rootfsPropagation", "\(rootfsPropagation): mounts are not propagated between host and guest",
            if: !["", "private", "rprivate"].contains(rootfsPropagation))
        found.warn("linux.mountLabel", "the guest has no SELinux", if: !mountLabel.isEmpty)
        found.refuse("linux.intelRdt", "not supported", if: intelRdt != nil)
        found.refuse("linux.memoryPolicy", "not supported yet", if: memoryPolicy != nil)
        found.refuse(
            "linux.personality", "not applied yet",
            if: personality.map { $0.domain != "LINUX" || !$0.flags.isEmpty } ?? false)
        found.refuse("linux.timeOffsets", "time namespaces are not supported yet", if: !timeOffsets.isEmpty)
        resources?.collectUnsupported(&found)
    }

    private func collectNamespaces(_ found: inout Findings) {
        for (index, namespace) in namespaces.enumerated() {
            let field = "linux.namespaces[\(index)]"
            switch namespace.kind {
            case .user: found.refuse(field, "user namespaces are not supported yet")
            case .network: break
            case .time: found.refuse(field, "time namespaces are not supported yet")
            default:
                found.refuse(
                    "\(field).path", "joining an existing \(namespace.type) namespace is not supported yet",
                    if: !namespace.path.isEmpty)
            }
        }
        found.refuse(
            "linux.namespaces", "a container without a mount namespace is not supported",
            if: !namespaces.contains { $0.kind == .mount })
        found.warn(
            "linux.namespaces", "without a network namespace the container has the network of its virtual machine",
            if: !namespaces.contains { $0.kind == .network })
    }
}

extension Linux.Resources {
    fileprivate func collectUnsupported(_ found: inout Findings) {
        let name = "linux.resources"
        found.warn("\(name).devices", "not applied yet", if: !devices.isEmpty)
        found.warn("\(name).pids", "not applied yet", if: (pids?.limit ?? 0) > 0)
        if let memory { memory.collectUnsupported("\(name).memory", &found) }
        if let cpu { cpu.collectUnsupported("\(name).cpu", &found) }
        found.refuse(
            "\(name).blockIO", "not applied yet", if: blockIO.map { $0 != BlockIO() && $0.weight != 0 } ?? false)
        found.refuse("\(name).hugepageLimits", "not applied yet", if: !hugepageLimits.isEmpty)
        found.refuse(
            "\(name).network", "not applied yet",
            if: network.map { ($0.classID ?? 0) != 0 || !$0.priorities.isEmpty } ?? false)
        found.refuse("\(name).rdma", "not applied yet", if: !rdma.isEmpty)
        found.refuse("\(name).unified", "not applied yet", if: !unified.isEmpty)
    }
}

extension Linux.Resources.Memory {
    fileprivate func collectUnsupported(_ name: String, _ found: inout Findings) {
        let limits = [
            ("limit", limit), ("reservation", reservation), ("swap", swap), ("kernel", kernel),
            ("kernelTCP", kernelTCP),
        ]
        for (field, value) in limits { found.refuse("\(name).\(field)", "not applied yet", if: (value ?? 0) > 0) }
        found.refuse("\(name).swappiness", "not applied yet", if: swappiness != nil)
        found.refuse("\(name).disableOOMKiller", "not applied yet", if: disableOOMKiller == true)
    }
}

extension Linux.Resources.CPU {
    fileprivate func collectUnsupported(_ name: String, _ found: inout Findings) {
        // A weight among the containers of the host, which engines always write; alone in its machine it has no effect.
        found.warn("\(name).shares", "not applied yet", if: (shares ?? 0) != 0)
        found.refuse("\(name).quota", "not applied yet", if: (quota ?? 0) > 0)
        found.refuse("\(name).burst", "not applied yet", if: (burst ?? 0) != 0)
        found.refuse("\(name).realtimeRuntime", "not applied yet", if: (realtimeRuntime ?? 0) != 0)
        found.refuse("\(name).realtimePeriod", "not applied yet", if: (realtimePeriod ?? 0) != 0)
        found.refuse("\(name).cpus", "not applied yet", if: !cpus.isEmpty)
        found.refuse("\(name).mems", "not applied yet", if: !mems.isEmpty)
        found.refuse("\(name).idle", "not applied yet", if: (idle ?? 0) != 0)
    }
}

private struct Findings {
    var list: [Unsupported] = []

    mutating func refuse(_ field: String, _ reason: String, if condition: Bool = true) {
        if condition { list.append(Unsupported(field: field, verdict: .refuse, reason: reason)) }
    }

    mutating func warn(_ field: String, _ reason: String, if condition: Bool) {
        if condition { list.append(Unsupported(field: field, verdict: .warn, reason: reason)) }
    }
}
