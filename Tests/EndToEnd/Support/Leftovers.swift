import Glibc
import LinuxSystem
import Synchronization

/// What a run may leave behind: processes (and so memory files and descriptors), mounts, sockets, directories, control
/// groups.
enum Leftovers {
    /// Descendants of this process, with their parents. The lab makes it the parent of orphans, so a daemon shows too.
    static func processes() -> Set<Int32> { Set(table().keys) }

    /// How many of them have not ended: orphans' ends are taken when a scene is over.
    static var livingProcesses: Int { table().values.count { !$0.isZombie } }

    /// Looks until nothing is left, or five seconds have passed; answers a line for each thing that stayed.
    static func settled(of scene: Scene, before: Set<Int32>) -> [String] {
        let end = ContinuousClock.now + .seconds(5)
        while true {
            reapOrphans()
            let left =
                processLines(table(), before) + mounts(scene) + sockets(scene) + files(scene) + controlGroups(scene)
            if left.isEmpty || ContinuousClock.now > end { return left }
            usleep(50_000)
        }
    }

    /// Since when a child of this process has been a zombie.
    private static let zombies = Mutex<[Int32: ContinuousClock.Instant]>([:])

    /// Takes the ends of orphans, as init would. A child whose end nobody waits for was one; `ChildProcess` reaps its own at once.
    static func reapOrphans() {
        let now = ContinuousClock.now
        let current = table().filter { $0.value.isZombie && $0.value.isOurs }.keys
        zombies.withLock { zombies in
            zombies = Dictionary(uniqueKeysWithValues: current.map { ($0, zombies[$0] ?? now) })
            for (pid, since) in zombies where now - since > .milliseconds(100) { waitpid(pid, nil, WNOHANG) }
        }
    }

    private struct Entry {
        var parent: Int32
        var isZombie: Bool
        var isOurs: Bool
    }

    private static func table() -> [Int32: Entry] {
        var all: [Int32: (parent: Int32, zombie: Bool)] = [:]
        for name in list("/proc") {
            guard let pid = Int32(name), let text = read("/proc/\(pid)/stat"), let close = text.lastIndex(of: ")")
            else { continue }
            let fields = text[text.index(after: close)...].split(separator: " ")
            guard fields.count > 1, let parent = Int32(fields[1]) else { continue }
            all[pid] = (parent, fields[0] == "Z")
        }
        let own = getpid()
        var result: [Int32: Entry] = [:]
        for (pid, entry) in all {
            var above = entry.parent
            for _ in 0..<64 where above > 1 && above != own { above = all[above]?.parent ?? 0 }
            if above == own {
                result[pid] = Entry(parent: entry.parent, isZombie: entry.zombie, isOurs: entry.parent == own)
            }
        }
        return result
    }

    private static func processLines(_ table: [Int32: Entry], _ before: Set<Int32>) -> [String] {
        table.keys.filter { !before.contains($0) }.sorted().map { pid in
            let command = read("/proc/\(pid)/cmdline")?.replacing("\0", with: " ") ?? ""
            let memory = list("/proc/\(pid)/fd").filter { name in
                var target = [CChar](repeating: 0, count: 256)
                let count = readlink("/proc/\(pid)/fd/\(name)", &target, target.count)
                let bytes = target.prefix(max(count, 0)).map { UInt8(bitPattern: $0) }
                return String(decoding: bytes, as: UTF8.self).contains("memfd:")
            }
            let state = table[pid]?.isZombie == true ? "zombie" : "\(memory.count) memory files"
            return "process \(pid) (\(state)): \(command.prefix(200))"
        }
    }

    private static func mounts(_ scene: Scene) -> [String] {
        lines("/proc/self/mountinfo", scene).map { "mount: \($0)" }
    }

    private static func sockets(_ scene: Scene) -> [String] { lines("/proc/net/unix", scene).map { "socket: \($0)" } }

    private static func lines(_ file: String, _ scene: Scene) -> [String] {
        (read(file) ?? "").split(separator: "\n").filter { $0.contains(scene.token) }.map(String.init)
    }

    private static func files(_ scene: Scene) -> [String] {
        let kept = list(scene.root).map { "\(scene.root)/\($0)" }
        let elsewhere = ["/run", "/run/martlet", "/tmp", "/dev/shm", "/var/lib"].flatMap { directory in
            list(directory).filter { $0.contains(scene.token) }.map { "\(directory)/\($0)" }
        }
        return (kept + elsewhere.filter { $0 != scene.directory }).map { "file: \($0)" }
    }

    private static func controlGroups(_ scene: Scene) -> [String] {
        var found: [String] = []
        var level = ["/sys/fs/cgroup"]
        for _ in 0..<4 {
            level = level.flatMap { directory in
                list(directory).filter { !$0.contains(".") || $0.contains(scene.token) }.map { "\(directory)/\($0)" }
            }
            found += level.filter { $0.contains(scene.token) }
        }
        return found.map { "control group: \($0)" }
    }

    /// The pid of one of a pod's processes, by its name in the pod's state.
    static func process(_ name: String, in state: String) throws -> Int32 {
        let text = read(state) ?? ""
        let expression = try Regex("\"name\":\"\(name)\",\"pid\":([0-9]+)", as: (Substring, Substring).self)
        guard let entry = text.firstMatch(of: expression), let pid = Int32(entry.1) else {
            throw LabError("no \(name) in \(state): \(text)")
        }
        return pid
    }

    /// What a process has had of the processors, in seconds.
    static func processorTime(_ pid: Int32) -> Double {
        let fields = (read("/proc/\(pid)/stat") ?? "").split(separator: ")").last?.split(separator: " ") ?? []
        // proc(5): utime and stime, the name being the second field.
        return fields.count > 12 ? (Double(fields[11]) ?? 0) / 100 + (Double(fields[12]) ?? 0) / 100 : 0
    }

    static func list(_ path: String) -> [String] { (try? directoryNames(path)) ?? [] }

    static func read(_ path: String) -> String? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 32 << 10)
        while true {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            if count <= 0 { return String(decoding: bytes, as: UTF8.self) }
            bytes += chunk[..<count]
        }
    }
}
