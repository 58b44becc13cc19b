import OCISpec

/// Which cgroup of the host a bundle names, in either form of `linux.cgroupsPath`.
///
/// `/a/b` is a path below each hierarchy's root. A relative one, which the specification leaves to the runtime, begins there too
/// (CRI-O writes one where nobody names the pod's cgroup). `SLICE:PREFIX:NAME` is a scope of systemd, as engines write it whose
/// cgroup driver is systemd: `PREFIX-NAME.scope` in a slice.
///
/// Source: runtime-spec, config-linux.md, "Cgroups Path"; systemd.slice(5); runc, docs/systemd.md.
public struct HostCgroupPath: Sendable, Equatable, Codable {
    /// A scope, where systemd is to make it.
    struct Scope: Sendable, Equatable, Codable {
        var name: String
        var slice: String
    }

    /// Absolute, below each hierarchy's root.
    let path: String
    let scope: Scope?

    private init(path: String, scope: Scope?) { (self.path, self.scope) = (path, scope) }

    /// A path in the form of cgroupfs.
    ///
    /// - Throws: `SandboxError.invalid` for one that leads out of the hierarchy.
    init(path: String) throws {
        guard !path.split(separator: "/").contains("..") else { throw Self.invalid(path, "has a ..") }
        self.init(path: path.hasPrefix("/") ? path : "/\(path)", scope: nil)
    }

    /// Where the pods are whose bundles name none.
    static let ownParent = "/martlet"

    /// That of a pod whose bundle names none.
    static func own(id: String) throws -> HostCgroupPath { try HostCgroupPath(path: "\(ownParent)/\(id)") }

    /// Whether nobody has asked for it.
    var isOwn: Bool { path.hasPrefix("\(Self.ownParent)/") && scope == nil }

    /// nil where the bundle names none.
    ///
    /// - Throws: `SandboxError.invalid`.
    init?(_ cgroupsPath: String) throws {
        if cgroupsPath.isEmpty { return nil }
        let parts = cgroupsPath.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        // A path of cgroupfs may have colons, and begins with a slash then.
        guard parts.count == 3, !cgroupsPath.hasPrefix("/") else {
            try self.init(path: cgroupsPath)
            return
        }
        let slice = parts[0].isEmpty ? "system.slice" : parts[0]
        guard !parts[2].isEmpty, !cgroupsPath.contains("/") else {
            throw Self.invalid(cgroupsPath, "not SLICE:PREFIX:NAME, systemd's form")
        }
        // As runc does, for a group that is a slice itself.
        let name =
            parts[2].hasSuffix(".slice") ? parts[2] : (parts[1].isEmpty ? "" : "\(parts[1])-") + "\(parts[2]).scope"
        guard let directory = Self.expand(slice) else { throw Self.invalid(cgroupsPath, "\(slice) is no slice") }
        self.init(path: "\(directory)/\(name)", scope: Scope(name: name, slice: slice))
    }

    /// The path of a slice: the dashes of its name say in which others it lies.
    private static func expand(_ slice: String) -> String? {
        let suffix = ".slice"
        guard slice.hasSuffix(suffix) else { return nil }
        let name = slice.dropLast(suffix.count)
        if name == "-" { return "" }
        let words = name.split(separator: "-", omittingEmptySubsequences: false)
        guard !words.contains("") else { return nil }
        return words.indices.map { "/" + words[...$0].joined(separator: "-") + suffix }.joined()
    }

    private static func invalid(_ path: String, _ reason: String) -> SandboxError {
        .invalid("config.json: linux.cgroupsPath: \(path): \(reason)")
    }
}
