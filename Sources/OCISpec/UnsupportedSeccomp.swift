extension Linux.Seccomp {
    /// The unsupported properties of a filter that are set. Field names start with `name`.
    public func unsupported(_ name: String = "linux.seccomp") -> [Unsupported] {
        let reason = "a listener of the host can't look into the guest"
        func refusal(_ field: String) -> Unsupported {
            Unsupported(field: "\(name).\(field)", verdict: .refuse, reason: reason)
        }
        var found: [Unsupported] = []
        if defaultAction == "SCMP_ACT_NOTIFY" { found.append(refusal("defaultAction")) }
        for (index, rule) in syscalls.enumerated() where rule.action == "SCMP_ACT_NOTIFY" {
            found.append(refusal("syscalls[\(index)].action"))
        }
        // Without these actions there is nothing to listen for.
        if !found.isEmpty { return found }
        for (field, value) in [("listenerPath", listenerPath), ("listenerMetadata", listenerMetadata)]
        where !value.isEmpty {
            found.append(
                .init(field: "\(name).\(field)", verdict: .warn, reason: "ignored, no action is SCMP_ACT_NOTIFY"))
        }
        return found
    }
}
