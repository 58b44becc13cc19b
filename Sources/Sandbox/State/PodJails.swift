import FoundationEssentials
import Glibc
public import Jail
import LinuxSystem

/// The jails of a pod's host processes, as they are.
public enum PodJails {
    /// A process of a pod in its jail.
    public struct Process: Sendable, Codable {
        /// As messages name it: `martlet-device files`.
        public var name: String
        public var kind: JailPlan.Kind
        public var jail: RunningJail
        /// What differs from the plan.
        public var deviations: [String]
    }

    /// Looks at each process of a running pod that serves its guest.
    ///
    /// - Parameters:
    ///   - name: the pod's id, or the beginning of one that no other pod's id has.
    ///   - root: `paths.root`.
    /// - Throws: `SandboxError.notFound` without such a pod.
    public static func inspect(pod name: String, root: String) throws -> [Process] {
        let pod = try PodList.find(name, in: PodList.all(root: root))
        guard let state = StateDirectory(path: pod.directory).read(), let user = state.user else {
            throw SandboxError.wrongState("pod \(pod.id) is being started")
        }
        var processes: [(name: String, kind: JailPlan.Kind, pid: Int32)] = state.processes.compactMap { record in
            JailPlan.Kind(process: record.name).map { (record.name, $0, record.pid) }
        }
        processes += try containerProcesses(ofPod: pod.id).map { ("martlet-device container", .container, $0) }
        return try processes.map { name, kind, pid in
            let jail = try RunningJail(pid: pid)
            let deviations = jail.deviations(from: JailPlan(kind, user: user))
            return Process(name: name, kind: kind, jail: jail, deviations: deviations)
        }
    }

    /// By their titles; see `HostProcess.title`.
    private static func containerProcesses(ofPod id: String) throws -> [Int32] {
        try directoryNames("/proc").compactMap { Int32($0) }.filter { pid in
            guard let text = try? readText("/proc/\(pid)/cmdline") else { return false }
            let words = text.split(separator: "\0")
            return words.count > 3 && words[0].hasSuffix("/martlet-device") && words[1] == "container"
                && words.suffix(2) == ["pod", Substring(id)]
        }.sorted()
    }
}

extension JailPlan.Kind {
    /// The kind of a process of a machine, by the name that its driver gives it.
    init?(process name: String) {
        let words = name.split(separator: " ")
        switch words.first {
        case "martlet-vmm": self = .vmm
        case "qemu": self = .qemu
        case "martlet-device": self.init(rawValue: words.dropFirst().first.map(String.init) ?? "")
        default: return nil
        }
    }
}
