import GuestSystem
import LinuxSystem

/// The guest's CPUs. Those that are plugged while the guest runs are there, but nothing runs on them until they are put to use.
///
/// Source: Documentation/core-api/cpu_hotplug.rst.
struct Processors: Sendable {
    var directory = "/sys/devices/system/cpu"
    /// How long a CPU may take to come.
    var limit = Duration.seconds(10)
    private static let pause = Duration.milliseconds(10)

    /// Has the kernel run on the first CPUs, so many, and on no others.
    ///
    /// - Throws: `AgentFailure` where they do not come, or can't be used.
    func use(_ count: Int) async throws(AgentFailure) {
        let end = ContinuousClock.now + limit
        while true {
            let names = try during("list CPUs") { try present() }
            if names.count >= count {
                for (index, name) in names.enumerated() {
                    try during("use \(name)") { try set(name, isOnline: index < count) }
                }
                return
            }
            guard ContinuousClock.now < end else {
                throw AgentFailure(.deadlineExceeded, "the guest has \(names.count) CPUs, not \(count)")
            }
            try? await Task.sleep(for: Self.pause)
        }
    }

    /// `cpu0`, `cpu1` …
    private func present() throws(SystemError) -> [String] {
        try directoryNames(directory).compactMap { $0.hasPrefix("cpu") ? Int($0.dropFirst(3)) : nil }.sorted()
            .map { "cpu\($0)" }
    }

    /// One that can't be stopped has no such file.
    private func set(_ name: String, isOnline: Bool) throws(SystemError) {
        let (file, wanted) = ("\(directory)/\(name)/online", isOnline ? "1" : "0")
        guard let text = try? readText(file), text.prefix(1) != wanted else { return }
        try writeText(wanted, to: file)
    }
}
