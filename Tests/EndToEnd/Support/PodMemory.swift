import FoundationEssentials
import Testing

extension Scene {
    /// What a pod takes of the host: MiB of its processes, the guest's memory among them.
    func memory(ofPod id: String) throws -> Int {
        struct State: Decodable {
            struct Process: Decodable { var pid: Int32 }
            var processes: [Process]
        }
        let text = try #require(Leftovers.read("\(root)/\(id)/state.json"))
        let state = try JSONDecoder().decode(State.self, from: Data(text.utf8))
        return state.processes.reduce(0) { sum, process in
            let lines = (Leftovers.read("/proc/\(process.pid)/smaps_rollup") ?? "").split(separator: "\n")
            let words = lines.first { $0.hasPrefix("Pss:") }?.split(separator: " ")
            return sum + (words.flatMap { Int($0[1]) } ?? 0)
        } >> 10
    }
}
