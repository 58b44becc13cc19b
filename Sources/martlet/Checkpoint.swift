import ArgumentParser
import Glibc
import PodService
import Sandbox

/// What `checkpoint` and `restore` have in common.
struct CheckpointArguments: ParsableArguments {
    @Option(help: "The checkpoint's directory.")
    var imagePath = "checkpoint"

    // What CRIU must be told; a machine is always saved whole.
    @Option(help: "Has no effect: there are no files of work in progress.")
    var workPath: String?

    @Flag(help: "Has no effect: connections are in the machine, and always saved.")
    var tcpEstablished = false

    @Flag(help: "Has no effect: Unix sockets are in the machine, and always saved.")
    var extUnixSk = false

    @Flag(help: "Has no effect: a terminal is in the machine, and always saved.")
    var shellJob = false

    @Flag(help: "Has no effect: locks are in the machine, and always saved.")
    var fileLocks = false

    @Option(help: "Has no effect: cgroups are in the machine, and always saved.")
    var manageCgroupsMode: String?

    @Flag(help: "Not supported.")
    var lazyPages = false

    /// An absolute path.
    var directory: String { absolutePath(imagePath) }

    func validate() throws {
        if lazyPages {
            throw ValidationError("--lazy-pages is not supported: pages of memory are always read on demand")
        }
    }
}

struct Checkpoint: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write a running container, with its virtual machine, to a directory.",
        discussion: """
            The container is deleted, unless it is left running. `martlet restore` has it go on, here or on a host with the same CPU, \
            kernel and version of Martlet.
            """)

    @OptionGroup var global: GlobalOptions
    @OptionGroup var arguments: CheckpointArguments

    @Flag(help: "The container goes on.")
    var leaveRunning = false

    @Option(help: "Not supported.")
    var parentPath: String?

    @Flag(help: "Not supported.")
    var preDump = false

    @Option(help: "Not supported.")
    var pageServer: String?

    @Argument(help: "The container's id.")
    var id: String

    func validate() throws {
        if parentPath != nil { throw ValidationError("--parent-path is not supported: a checkpoint is always whole") }
        if preDump { throw ValidationError("--pre-dump is not supported: a checkpoint is always whole") }
        if pageServer != nil { throw ValidationError("--page-server is not supported") }
    }

    func run() async throws {
        try await global.reporting { _ in
            let runtime = try global.runtime()
            try await ProgressLine.show("writing the checkpoint of \(id)") {
                try await runtime.checkpoint(id, to: arguments.directory, isLeftRunning: leaveRunning)
            }
        }
    }
}

struct Restore: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Have a container go on from a checkpoint.",
        discussion:
            "The bundle is as it was, its root file system and mounts too. The checkpoint's files stay as they are.")

    @OptionGroup var global: GlobalOptions
    @OptionGroup var checkpoint: CheckpointArguments
    @OptionGroup var arguments: CreateArguments

    @Argument(help: "The container's id.")
    var id: String

    @Flag(name: [.long, .short], help: "Return when the container goes on.")
    var detach = false

    func run() async throws {
        let status = try await global.reporting { logger in
            var options = arguments.options(id: id, isDetached: detach)
            options.checkpoint = checkpoint.directory
            return try await RunCommand(options, try global.runtimeForServers()).run(logger: logger)
        }
        throw ExitCode(status)
    }
}

struct Fork: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a copy of a running container, in a virtual machine of its own, that goes on apart.",
        discussion: """
            The new container has the memory of the other one, a root file system and a network of its own, and the same bind mounts. The other one \
            stands still until its root file system is copied. What it has in memory, keys and tokens too, the new one has.
            """)

    @OptionGroup var global: GlobalOptions

    @Option(
        name: [.long, .short],
        help: "The new container's bundle; made as a copy of the other one's where there is none.")
    var bundle: String

    @Option(help: "A file that gets the id of the container's process on the host.")
    var pidFile: String?

    @Flag(help: "Fork a container with Secrets of Kubernetes too: the new one has them.")
    var withSecrets = false

    @Argument(help: "The id of the container that is forked.")
    var id: String

    @Argument(help: "The new container's id.")
    var new: String

    func run() async throws {
        try await global.reporting { _ in
            let options = CreateOptions(id: new, bundle: absolutePath(bundle), pidFile: pidFile, isDetached: true)
            let runtime = try global.runtimeForServers()
            try await ProgressLine.show("forking \(id)") {
                try await runtime.fork(id, options, allowsSecrets: withSecrets)
            }
        }
    }
}

/// A path of the command line, from the working directory on.
func absolutePath(_ path: String) -> String {
    guard !path.hasPrefix("/"), let directory = getcwd(nil, 0) else { return path }
    defer { free(directory) }
    return String(cString: directory) + "/" + path
}
