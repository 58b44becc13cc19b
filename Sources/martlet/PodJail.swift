import ArgumentParser
import Jail
import Sandbox

/// `martlet pod jail POD`: what each process that serves a pod may do, held against the plan.
struct PodJailCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "jail",
        abstract: "Show what each host process of a running pod may do. Fails where that is not what is planned.")

    @OptionGroup var global: GlobalOptions

    @Flag(help: "As JSON.")
    var json = false

    @Argument(help: "The pod's id, or the beginning of it.")
    var pod: String

    func run() async throws {
        try await global.reporting { _ in
            let processes = try PodJails.inspect(pod: pod, root: global.stateRoot())
            if json { try printJSON(processes) } else { printTable(Self.table(processes)) }
            let deviations = processes.flatMap { process in
                process.deviations.map { "\(process.name) (pid \(process.jail.pid)): \($0)" }
            }
            if !deviations.isEmpty { throw SandboxError.failed(deviations.joined(separator: "; ")) }
        }
    }

    private static func table(_ processes: [PodJails.Process]) -> [[String]] {
        [["PROCESS", "PID", "UID", "CAPABILITIES", "NAMESPACES", "ROOT", "SYSTEM CALLS", "DESCRIPTORS"]]
            + processes.map { process in
                let jail = process.jail
                let calls = JailPlan(process.kind, user: jail.user).filters.map {
                    "\($0.thread) \($0.isDenyList ? "all but \($0.calls.count)" : "\($0.count)")"
                }
                return [
                    process.name, "\(jail.pid)", "\(jail.user)", list(jail.capabilities.names),
                    list(jail.namespaces.map(\.rawValue)), list(jail.root, most: 4), list(calls),
                    list(jail.descriptors.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key.rawValue)" }),
                ]
            }
    }

    private static func list(_ words: [String], most: Int = .max) -> String {
        if words.isEmpty { return "-" }
        return words.prefix(most).joined(separator: ",") + (words.count > most ? ",…" : "")
    }
}
