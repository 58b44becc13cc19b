import ArgumentParser
import Glibc
import LinuxSystem
import OCISpec
import PodService
import Sandbox

struct Start: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Execute the program of a created container.")

    @OptionGroup var global: GlobalOptions

    @Argument(help: "The container's id.")
    var id: String

    func run() async throws { try await global.reporting { _ in try await global.runtime().start(id) } }
}

struct State: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Print the state of a container, as JSON.")

    @OptionGroup var global: GlobalOptions

    @Argument(help: "The container's id.")
    var id: String

    func run() async throws {
        try await global.reporting { _ in
            try print(json(await global.runtime().state(id), isIndented: true))
        }
    }
}

struct List: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "List the containers of the command line; `martlet pod list` lists the pods of all engines.")

    enum Format: String, ExpressibleByArgument, CaseIterable { case table, json }

    @OptionGroup var global: GlobalOptions

    @Option(name: [.long, .short], help: "table or json.")
    var format = Format.table

    @Flag(name: [.long, .short], help: "Print the ids alone.")
    var quiet = false

    func run() async throws {
        try await global.reporting { _ in
            let runtime = try global.runtime()
            if quiet {
                for id in runtime.containerIDs { print(id) }
                return
            }
            let containers = try await runtime.list()
            switch format {
            case .json:
                try print(containers.isEmpty ? "null" : "[\(containers.map { try json($0) }.joined(separator: ","))]")
            case .table:
                printTable(
                    [["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]]
                        + containers.map {
                            [$0.id, "\($0.pid)", $0.status.rawValue, $0.bundle, $0.created, $0.owner]
                        })
            }
        }
    }
}

/// A state as JSON, its fields in runc's order: there are scripts that take them by their places.
private func json(_ state: ContainerStateReport, isIndented: Bool = false) throws -> String {
    func text(_ value: some Encodable) throws -> String { String(decoding: try JSON.encode(value), as: UTF8.self) }
    var fields = try [
        ("ociVersion", text(state.ociVersion)), ("id", text(state.id)), ("pid", "\(state.pid)"),
        ("status", text(state.status)), ("bundle", text(state.bundle)), ("rootfs", text(state.rootfs)),
        ("created", text(state.created)),
    ]
    if let annotations = state.annotations { fields.append(("annotations", try text(annotations))) }
    fields.append(("owner", try text(state.owner)))
    let (begin, between, end) = isIndented ? ("{\n  ", ",\n  ", "\n}") : ("{", ",", "}")
    return begin + fields.map { "\"\($0)\":\(isIndented ? " " : "")\($1)" }.joined(separator: between) + end
}

struct Kill: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Send a signal to the first process of a container.")

    @OptionGroup var global: GlobalOptions

    @Flag(name: [.long, .short], help: "Send it to every process of the container.")
    var all = false

    @Argument(help: "The container's id.")
    var id: String

    @Argument(help: "The signal's number, or its name with or without SIG.")
    var signal = "SIGTERM"

    func run() async throws {
        try await global.reporting { _ in
            guard let number = signalNumber(signal) else { throw SandboxError.invalid("unknown signal \"\(signal)\"") }
            try await global.runtime().kill(id, signal: number, all: all)
        }
    }
}

struct Delete: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Delete a container that has stopped; with the last one of a pod its virtual machine.")

    @OptionGroup var global: GlobalOptions

    @Flag(name: [.long, .short], help: "Kill it first if it runs; no error if there is none.")
    var force = false

    @Argument(help: "The container's id.")
    var id: String

    func run() async throws {
        try await global.reporting { _ in try await global.runtime().delete(id, isForced: force) }
    }
}

struct Pause: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Suspend all processes of a container.")

    @OptionGroup var global: GlobalOptions

    @Argument(help: "The container's id.")
    var id: String

    func run() async throws { try await global.reporting { _ in try await global.runtime().pause(id) } }
}

struct Resume: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Let the processes of a paused container go on.")

    @OptionGroup var global: GlobalOptions

    @Argument(help: "The container's id.")
    var id: String

    func run() async throws { try await global.reporting { _ in try await global.runtime().resume(id) } }
}

struct Processes: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ps", abstract: "List the processes of a container.",
        discussion: """
            The table shows the processes in the guest, with their ids there. JSON has the ids on the host of the processes that \
            stand for the container and for execs in it, which engines look up among the host's.
            """)

    @OptionGroup var global: GlobalOptions

    @Option(name: [.long, .short], help: "table or json.")
    var format = List.Format.table

    @Argument(help: "The container's id.")
    var id: String

    @Argument(parsing: .captureForPassthrough, help: "Options of ps(1): have no effect.")
    var options: [String] = []

    func run() async throws {
        try await global.reporting { _ in
            let runtime = try global.runtime()
            switch format {
            case .json: try printJSON(await runtime.hostPIDs(id), isIndented: false)
            case .table: printTable(try await runtime.processTable(id))
            }
        }
    }
}

/// The number of a signal, by its number or its name, with or without SIG; nil for what is none.
func signalNumber(_ text: String) -> Int32? {
    // 0 asks whether there is a process (kill(2)).
    if let number = Int32(text) { return (0...64).contains(number) ? number : nil }
    let name = text.uppercased()
    let full = name.hasPrefix("SIG") ? name : "SIG\(name)"
    if let number = (1...31).first(where: { signalName($0) == full }) { return number }
    // SIGRTMIN+n and SIGRTMAX-n, as the C library counts them (signal(7)).
    for (base, first, sign) in [("SIGRTMIN", Int32(34), Int32(1)), ("SIGRTMAX", 64, -1)] where full.hasPrefix(base) {
        let rest = full.dropFirst(base.count)
        if rest.isEmpty { return first }
        guard let offset = Int32(rest.dropFirst()), rest.first == (sign > 0 ? "+" : "-"), (0...30).contains(offset)
        else {
            return nil
        }
        return first + sign * offset
    }
    return nil
}
