import ArgumentParser
import Glibc
import LinuxSystem
import PodService
import Sandbox

/// `martlet pod …`: the pods of this host, whoever started them.
struct PodCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pod", abstract: "Inspect the pods of this host, whoever started them.",
        subcommands: [
            PodListCommand.self, PodProcessesCommand.self, PodLogsCommand.self, PodEventsCommand.self,
            PodTopCommand.self, PodJailCommand.self, PodShellCommand.self, PodCopyCommand.self, PodFreezeCommand.self,
            PodCheckpointCommand.self, PodRestoreCommand.self, PodForkCommand.self,
        ])
}

struct PodListCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "List the pods of this host.")

    @OptionGroup var global: GlobalOptions

    @Flag(help: "As JSON.")
    var json = false

    func run() async throws {
        try await global.reporting { _ in
            let pods = PodList.all(root: try global.stateRoot())
            if json { return try printJSON(pods) }
            printTable(
                [["POD", "NAMESPACE", "STATUS", "PID", "BUNDLE"]]
                    + pods.map { pod in
                        [
                            pod.id, pod.namespace.isEmpty ? "-" : pod.namespace, pod.isRunning ? "running" : "dead",
                            "\(pod.pid)", pod.bundle.isEmpty ? "-" : pod.bundle,
                        ]
                    })
        }
    }
}

struct PodProcessesCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ps", abstract: "List a running pod's containers and the processes in them.")

    @OptionGroup var global: GlobalOptions

    @Argument(help: "The pod's id, or the beginning of it.")
    var pod: String

    func run() async throws {
        try await global.reporting { _ in
            let containers = try await PodInspection(pod: pod, root: global.stateRoot()).containers()
            var rows = [["CONTAINER", "STATUS", "PID", "USER", "COMMAND"]]
            for container in containers {
                if container.processes.isEmpty { rows.append([container.id, container.status, "-", "-", "-"]) }
                for process in container.processes {
                    rows.append(
                        [container.id, container.status, "\(process.pid)", "\(process.userID)", process.command])
                }
            }
            printTable(rows)
        }
    }
}

struct PodLogsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "logs",
        abstract: "Print the console of a running pod's guest: the last 200 lines of its kernel and agent.")

    @OptionGroup var global: GlobalOptions

    @Flag(name: [.long, .short], help: "Go on until the pod ends.")
    var follow = false

    @Argument(help: "The pod's id, or the beginning of it.")
    var pod: String

    func run() async throws {
        try await global.reporting { _ in
            let inspection = try await PodInspection(pod: pod, root: global.stateRoot())
            var next: UInt64 = 0
            while let console = try await inspection.console(from: next) {
                for line in console.lines { print(printable(line, limit: 4096)) }
                guard follow else { break }
                fflush(nil)
                next = console.first + UInt64(console.lines.count)
                try await Task.sleep(for: .milliseconds(500))
            }
        }
    }
}
