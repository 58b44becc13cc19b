/// A property of a configuration that Martlet does not support.
public struct Unsupported: Sendable, Equatable, CustomStringConvertible {
    public enum Verdict: String, Sendable, CaseIterable, Codable { case refuse, warn }

    /// The administrator's choices.
    public struct Policy: Sendable, Equatable, Codable {
        /// For limits that have no effect in a guest.
        public var ineffectiveLimits = Verdict.refuse
        /// For AppArmor profiles and SELinux labels.
        public var labels = Verdict.warn
        /// For devices of the host. With `warn` a container gets the guest's device with that number, or none.
        public var hostDevices = Verdict.refuse
        /// For namespaces of the host that a container would share. With `warn` it has those of its virtual machine.
        public var hostNamespaces = Verdict.refuse

        public init() {}
    }

    /// The path in the document: `linux.seccomp`.
    public var field: String
    /// `refuse`: the container would not run as its author expects. `warn`: engines set the property for every container, and a
    /// container in a virtual machine runs as expected without it.
    public var verdict: Verdict
    public var reason: String

    public init(field: String, verdict: Verdict, reason: String) {
        self.field = field
        self.verdict = verdict
        self.reason = reason
    }

    public var description: String { "\(field): \(reason)" }
}

extension Spec {
    /// All properties that are set and not supported, so that none is silently ignored.
    public func unsupported(policy: Unsupported.Policy = .init()) -> [Unsupported] {
        var found = Findings()
        for (platform, value) in [("solaris", solaris), ("windows", windows), ("vm", vm), ("zos", zos)] {
            found.refuse(platform, "only Linux containers are run", if: value != nil)
        }
        for (index, mount) in mounts.enumerated() { mount.collectUnsupported("mounts[\(index)]", &found) }
        found.list += process?.unsupported(policy: policy) ?? []
        linux?.collectUnsupported(&found, policy)
        return found.list
    }
}

extension Process {
    /// The unsupported properties of a single process, for exec. Field names start with `name`.
    public func unsupported(
        _ name: String = "process", policy: Unsupported.Policy = .init()
    ) -> [Unsupported] {
        var found = Findings()
        found.refuse("\(name).commandLine", "only Linux containers are run", if: !commandLine.isEmpty)
        found.add(
            policy.labels, "\(name).apparmorProfile", "the guest has no AppArmor",
            if: !["", "unconfined"].contains(apparmorProfile))
        found.add(policy.labels, "\(name).selinuxLabel", "the guest has no SELinux", if: !selinuxLabel.isEmpty)
        capabilities?.collectUnsupported("\(name).capabilities", &found)
        return found.list
    }
}

extension Capabilities {
    /// A container gets those that there are (config.md, "capabilities").
    fileprivate func collectUnsupported(_ name: String, _ found: inout Findings) {
        let sets = [
            ("bounding", bounding), ("effective", effective), ("inheritable", inheritable), ("permitted", permitted),
            ("ambient", ambient),
        ]
        for (set, names) in sets {
            for (index, capability) in names.enumerated() where !Self.names.contains(capability) {
                found.warn("\(name).\(set)[\(index)]", "\"\(capability)\" is not a capability", if: true)
            }
        }
        for capability in ambient where Self.names.contains(capability) {
            found.warn(
                "\(name).ambient",
                "can't raise ambient capability \(capability): it is not among the permitted and the inheritable ones",
                if: !permitted.contains(capability) || !inheritable.contains(capability))
        }
    }
}

extension Mount {
    private static let noMaps = "only bind mounts have mapped ids"

    fileprivate func collectUnsupported(_ name: String, _ found: inout Findings) {
        found.refuse("\(name).uidMappings", Self.noMaps, if: !isBind && !uidMappings.isEmpty)
        found.refuse("\(name).gidMappings", Self.noMaps, if: !isBind && !gidMappings.isEmpty)
        found.warn(
            "\(name).destination", "\(destination): relative, taken as /\(destination)", if: !destination.hasPrefix("/")
        )
        for option in options {
            switch option {
            case "idmap", "ridmap": found.refuse("\(name).options", "\(option): \(Self.noMaps)", if: !isBind)
            // For a file system of the guest, propagation works inside the guest.
            case "shared", "rshared":
                found.refuse(
                    "\(name).options",
                    "\(option) (mountPropagation Bidirectional): mounts made in the guest can't appear on the host",
                    if: isBind)
            default: continue
            }
        }
    }
}

extension Linux {
    fileprivate func collectUnsupported(_ found: inout Findings, _ policy: Unsupported.Policy) {
        collectNamespaces(&found)
        collectDevices(&found, policy)
        found.refuse("linux.netDevices", "not supported yet", if: !netDevices.isEmpty)
        found.list += seccomp?.unsupported() ?? []
        found.warn(
            "linux.rootfsPropagation",
            "\(rootfsPropagation): applies inside the guest; mounts made there do not appear on the host",
            if: ["shared", "rshared"].contains(rootfsPropagation))
        found.add(policy.labels, "linux.mountLabel", "the guest has no SELinux", if: !mountLabel.isEmpty)
        found.refuse("linux.intelRdt", "not supported", if: intelRdt != nil)
        found.refuse("linux.memoryPolicy", "not supported yet", if: memoryPolicy != nil)
        found.refuse(
            "linux.personality.flags", "the specification has none", if: personality?.flags.isEmpty == false)
        found.list += resources?.unsupported(policy: policy) ?? []
    }

    private func collectDevices(_ found: inout Findings, _ policy: Unsupported.Policy) {
        if allowsAllDevices {
            let (first, count) = (hostDevices.first?.path ?? "", hostDevices.count)
            found.warn(
                "linux.devices",
                "the container gets all devices of its virtual machine; left out is what only the host has: \(first)"
                    + (count > 1 ? " and \(count - 1) more" : ""), if: count > 0)
            return
        }
        for (index, device) in devices.enumerated() {
            found.add(
                policy.hostDevices, "linux.devices[\(index)]",
                "\(device.path): a device of the host, which the virtual machine does not have", if: !device.isGuests)
        }
    }

    private func collectNamespaces(_ found: inout Findings) {
        for namespace in namespaces where !namespace.path.isEmpty && namespace.kind != .network && !namespace.isGuests {
            found.refuse(
                "linux.namespaces", "\(namespace.type): \(namespace.path): a namespace outside the pod's machine")
        }
        found.refuse(
            "linux.namespaces", "a container without a mount namespace is not supported",
            if: !namespaces.contains { $0.kind == .mount })
    }
}

private struct Findings {
    var list: [Unsupported] = []

    mutating func add(_ verdict: Unsupported.Verdict, _ field: String, _ reason: String, if condition: Bool) {
        if condition { list.append(Unsupported(field: field, verdict: verdict, reason: reason)) }
    }

    mutating func refuse(_ field: String, _ reason: String, if condition: Bool = true) {
        if condition { list.append(Unsupported(field: field, verdict: .refuse, reason: reason)) }
    }

    mutating func warn(_ field: String, _ reason: String, if condition: Bool) {
        if condition { list.append(Unsupported(field: field, verdict: .warn, reason: reason)) }
    }
}
