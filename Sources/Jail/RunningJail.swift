import Glibc
import LinuxSystem

/// What a running process of a pod may do, as the kernel tells it: to be held against the plan.
public struct RunningJail: Sendable, Equatable, Codable {
    public var pid: Int32
    public var user: UInt32
    public var group: UInt32
    public var groups: [UInt32]
    /// The permitted ones, and those of the bounding set.
    public var capabilities: Capabilities
    public var bounding: Capabilities
    /// Those that are not the ones of the process that asks.
    public var namespaces: [JailPlan.Namespace]
    /// The names in its root directory.
    public var root: [String]
    public var noNewPrivileges: Bool
    /// Whether it can leave a core, and whether others of its user may trace it.
    public var isDumpable: Bool
    /// RLIMIT_CORE, RLIMIT_FSIZE, RLIMIT_NPROC and RLIMIT_NOFILE, the soft ones; nil: unlimited.
    public var limits: [String: UInt64?]
    /// The number of seccomp filters of each of its threads, by the threads' names.
    public var filters: [String: Int]
    public var descriptors: [DescriptorKind: Int]

    /// Reads what the kernel tells of a process.
    ///
    /// - Throws: where there is no such process, or this one may not look at it.
    public init(pid: Int32) throws {
        self.pid = pid
        let directory = "/proc/\(pid)"
        let status = try ProcessFields("\(directory)/status")
        user = status.numbers("Uid").first ?? 0
        group = status.numbers("Gid").first ?? 0
        groups = status.numbers("Groups")
        capabilities = Capabilities(rawValue: status.mask("CapPrm"))
        bounding = Capabilities(rawValue: status.mask("CapBnd"))
        noNewPrivileges = status.numbers("NoNewPrivs") == [1]
        namespaces = JailPlan.Namespace.allCases.filter {
            NamespaceIdentity(path: "\(directory)/ns/\($0.rawValue)")
                != NamespaceIdentity(path: "/proc/self/ns/\($0.rawValue)")
        }
        root = ((try? directoryNames("\(directory)/root")) ?? []).sorted()
        var facts = stat()
        try check("stat", directory, stat("\(directory)/environ", &facts))
        // The entries of a process that is not dumpable belong to root (proc(5)).
        isDumpable = facts.st_uid == user && user != 0
        limits = try Self.limits("\(directory)/limits")
        filters = [:]
        for thread in try directoryNames("\(directory)/task") {
            guard let status = try? ProcessFields("\(directory)/task/\(thread)/status") else { continue }
            filters[status.text("Name")] = Int(status.numbers("Seccomp_filters").first ?? 0)
        }
        descriptors = [:]
        for descriptor in try directoryNames("\(directory)/fd") {
            guard let link = symbolicLink("\(directory)/fd/\(descriptor)") else { continue }
            descriptors[DescriptorKind(link: link), default: 0] += 1
        }
    }

    private static func limits(_ path: String) throws -> [String: UInt64?] {
        let names = [
            "Max core file size": "core", "Max file size": "fsize", "Max processes": "nproc",
            "Max open files": "nofile",
        ]
        var limits: [String: UInt64?] = [:]
        for line in try readText(path).split(separator: "\n") {
            guard let (title, name) = names.first(where: { line.hasPrefix($0.key) }) else { continue }
            let soft = line.dropFirst(title.count).split(separator: " ").first ?? ""
            limits.updateValue(UInt64(soft), forKey: name)
        }
        return limits
    }

    /// What differs from the plan, one sentence each; empty: nothing.
    ///
    /// - Parameter plan: with the pod's user.
    public func deviations(from plan: JailPlan) -> [String] {
        var found: [String] = []
        func expect<V: Equatable>(_ name: String, _ value: V, _ planned: V) {
            if value != planned { found.append("\(name): \(value), planned: \(planned)") }
        }
        expect("uid", user, plan.user)
        expect("gid", group, plan.user)
        expect("groups", groups, [])
        expect("capabilities", capabilities.names, plan.capabilities.names)
        expect("bounding set", bounding.names, plan.capabilities.names)
        for namespace in plan.namespaces where !namespaces.contains(namespace) {
            found.append("no \(namespace.rawValue) namespace of its own")
        }
        if plan.root == .empty, plan.kind != .qemu { expect("root", root, []) }
        expect("no_new_privs", noNewPrivileges, true)
        // A program that is executed becomes dumpable.
        if plan.kind != .qemu { expect("dumpable", isDumpable, false) }
        expect("RLIMIT_CORE", limits["core"] ?? nil, plan.limits.core)
        if let size = plan.limits.fileSize { expect("RLIMIT_FSIZE", limits["fsize"] ?? nil, size) }
        if let threads = plan.limits.threads { expect("RLIMIT_NPROC", limits["nproc"] ?? nil, threads) }
        for (thread, count) in filters.sorted(by: { $0.key < $1.key }) {
            // QEMU adds its own.
            if plan.kind == .qemu ? count < 1 : count != plan.filters(ofThread: thread) {
                found.append("thread \(thread): \(count) seccomp filters, planned: \(plan.filters(ofThread: thread))")
            }
        }
        for kind in descriptors.keys.sorted() where !plan.descriptors.contains(kind) {
            found.append("\(descriptors[kind] ?? 0) descriptors of kind \(kind.rawValue), planned: none")
        }
        return found
    }
}

extension JailPlan {
    /// How many filters a thread has.
    func filters(ofThread name: String) -> Int {
        guard let first = filters.first else { return 0 }
        return filters.contains { $0 != first && $0.names.contains(where: name.hasPrefix) } ? 2 : 1
    }
}

/// The fields of /proc/PID/status.
private struct ProcessFields {
    private var fields: [Substring: Substring] = [:]

    init(_ path: String) throws {
        for line in try readText(path).split(separator: "\n") {
            guard let colon = line.firstIndex(of: ":") else { continue }
            fields[line[..<colon]] = line[line.index(after: colon)...].drop { $0 == " " || $0 == "\t" }
        }
    }

    func text(_ name: String) -> String { String(fields[Substring(name)] ?? "") }

    func numbers(_ name: String) -> [UInt32] {
        text(name).split { $0 == " " || $0 == "\t" }.compactMap { UInt32($0) }
    }

    func mask(_ name: String) -> UInt64 { UInt64(text(name), radix: 16) ?? 0 }
}
