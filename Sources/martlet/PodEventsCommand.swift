import ArgumentParser
import Glibc
import PodService

struct PodEventsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "events",
        abstract: "Print what has happened to a running pod's containers: the last 512 events.")

    @OptionGroup var global: GlobalOptions

    @Flag(name: [.long, .short], help: "Go on until the pod ends.")
    var follow = false

    @Flag(help: "As JSON, a line for each event.")
    var json = false

    @Argument(help: "The pod's id, or the beginning of it.")
    var pod: String

    func run() async throws {
        try await global.reporting { _ in
            let inspection = try await PodInspection(pod: pod, root: global.stateRoot())
            var next: UInt64 = 1
            while let reply = try await inspection.events(from: next, isPatient: follow) {
                for event in reply.events {
                    if json { try printJSON(event, isIndented: false) } else { print(Self.line(event)) }
                }
                fflush(nil)
                next = reply.next
                if !follow { break }
            }
        }
    }

    private static func line(_ event: PodEventReport) -> String {
        let parts = [
            event.time, event.type, event.container, event.exec, event.exitStatus.map { "code \($0)" },
        ]
        return parts.compactMap { $0 }.joined(separator: "  ")
    }
}
