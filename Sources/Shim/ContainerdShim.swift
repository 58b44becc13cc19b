import AgentContract
public import ArgumentParser
import FoundationEssentials
import Glibc
import Sandbox

/// containerd's runtime `io.containerd.martlet.v2`: each pod's containers in a virtual machine of their own.
public struct ContainerdShim: ParsableCommand {
    public static let configuration = CommandConfiguration(
        commandName: "containerd-shim-martlet-v2",
        abstract: "containerd's shim for containers in virtual machines. containerd starts it, not people.")

    enum Action: String, ExpressibleByArgument { case start, delete, serve }

    @Option(name: .customLong("namespace", withSingleDash: true), help: "containerd's namespace.")
    var namespace = ""

    @Option(name: .customLong("id", withSingleDash: true), help: "The container.")
    var id = ""

    @Option(
        name: .customLong("bundle", withSingleDash: true), help: "Its bundle; the working directory when not given.")
    var bundle = ""

    @Option(name: .customLong("address", withSingleDash: true), help: "containerd's gRPC socket.")
    var address = ""

    @Option(name: .customLong("publish-binary", withSingleDash: true), help: "Not used: TTRPC_ADDRESS takes events.")
    var publishBinary = ""

    @Option(name: .customLong("socket", withSingleDash: true), help: "Where the server listens; with serve.")
    var socket = ""

    @Flag(name: .customLong("debug", withSingleDash: true), help: "Log in detail.")
    var debug = false

    @Flag(name: .customLong("v", withSingleDash: true), help: "Print the version.")
    var version = false

    @Flag(name: .customLong("info", withSingleDash: true), help: "Print what the runtime is, as containerd reads it.")
    var info = false

    @Argument(help: "start, delete, or serve.")
    var action: Action?

    public init() {}

    public func perform() async throws {
        if version {
            print("containerd-shim-martlet-v2:\n  Version: \(martletVersion)")
            return
        }
        if info { return write(try ShimInfo.bytes()) }
        guard let action else { throw ValidationError("an action is missing: start or delete") }
        guard !namespace.isEmpty else { throw ValidationError("-namespace is empty") }
        guard !id.isEmpty else { throw ValidationError("-id is empty") }
        let command = ShimCommand(
            namespace: namespace, id: id, bundle: bundle, address: address, debug: debug)
        let environment = Self.environment()
        switch action {
        case .start: write(try await command.start(input: readInput(), environment: environment))
        case .delete: write(try await command.delete(environment: environment))
        case .serve: try await command.serve(socket: socket, environment: environment)
        }
    }

    private static func environment() -> [String: String] {
        var result: [String: String] = [:]
        for name in ShimCommand.variables {
            if let value = getenv(name) { result[name] = String(cString: value) }
        }
        return result
    }

    /// At most 10 MiB of standard input.
    private func readInput() -> [UInt8] {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        while bytes.count < 10 << 20 {
            let count = read(STDIN_FILENO, &chunk, chunk.count)
            if count <= 0 { break }
            bytes += chunk[..<count]
        }
        return bytes
    }

    private func write(_ bytes: [UInt8]) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
            if count <= 0 { return }
            rest = rest.dropFirst(count)
        }
    }
}
