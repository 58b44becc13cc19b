import Glibc
import LinuxSystem

/// The host processes of a pod of any runtime: containerd's shim and all of its descendants.
enum PodProcesses {
    /// The total memory of a pod's processes.
    static func memory(ofSandbox id: String) throws -> ProcessMemory {
        let processes = all()
        guard let shim = processes.first(where: { isShim($0.pid, of: id) }) else {
            throw BenchError("no shim of containerd has the argument -id \(id)")
        }
        // A process that has ended meanwhile has no memory.
        return descendants(of: shim.pid, among: processes)
            .compactMap { try? ProcessMemory(process: "\($0)", pid: $0) }.total
    }

    struct Entry {
        var pid: Int32
        var parent: Int32
    }

    /// `root` and all of its descendants.
    static func descendants(of root: Int32, among processes: [Entry]) -> [Int32] {
        let children = Dictionary(grouping: processes, by: \.parent)
        var found = [root]
        var next = 0
        while next < found.count {
            found += (children[found[next]] ?? []).map(\.pid)
            next += 1
        }
        return found
    }

    /// The processes that have `text` on their command line.
    static func naming(_ text: String) -> [Int32] {
        all().map(\.pid).filter { pid in
            (try? readText("/proc/\(pid)/cmdline"))?.contains(text) == true
        }
    }

    /// The processes of this host.
    static func all() -> [Entry] {
        ((try? directoryNames("/proc")) ?? []).compactMap { name in
            guard let pid = Int32(name), let parent = ProcessStatus.parent(of: pid) else { return nil }
            return Entry(pid: pid, parent: parent)
        }
    }

    private static func isShim(_ pid: Int32, of id: String) -> Bool {
        guard let arguments = try? readText("/proc/\(pid)/cmdline").split(separator: "\0") else { return false }
        return arguments.first?.contains("containerd-shim") == true
            && zip(arguments, arguments.dropFirst()).contains { $0 == "-id" && $1 == id[...] }
    }
}
