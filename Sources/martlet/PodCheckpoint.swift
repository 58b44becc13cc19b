import ArgumentParser
import Glibc
import PodService
import Sandbox

struct PodCheckpointCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "checkpoint",
        abstract: "Write a running pod, with all of its containers and its virtual machine, to a directory.",
        discussion: """
            The containers end, unless they are left running. `martlet pod restore` has them go on, here or on a host with the same CPU, \
            kernel and version of Martlet.
            """)

    @OptionGroup var global: GlobalOptions

    @Flag(help: "The containers go on.")
    var leaveRunning = false

    @Argument(help: "The pod's id, or the beginning of it.")
    var pod: String

    @Argument(help: "The checkpoint's directory.")
    var directory: String

    func run() async throws {
        try await global.reporting { _ in
            let runtime = try global.runtime()
            try await ProgressLine.show("writing the checkpoint of pod \(pod)") {
                try await runtime.checkpoint(
                    pod: pod, to: absolutePath(directory), isLeftRunning: leaveRunning)
            }
        }
    }
}

struct PodRestoreCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "restore",
        abstract: "Have a pod go on from a checkpoint with all of its containers.",
        discussion: """
            Prints the containers' ids. Each container keeps its id where no option says otherwise. The bundles are as they were, their \
            root file systems and mounts too. The containers write to this command's standard output and error.
            """)

    @OptionGroup var global: GlobalOptions

    @Option(
        name: [.long, .short],
        help: "The bundle of a container, by the id that it had: ID=DIRECTORY. To be given for each.")
    var bundle: [String] = []

    @Option(help: "Another id for a container, by the one that it had: ID=NEW. May be given for each.")
    var rename: [String] = []

    @Argument(help: "The checkpoint's directory.")
    var directory: String

    func validate() throws {
        _ = try pairs(bundle, "--bundle")
        _ = try pairs(rename, "--rename")
    }

    private func pairs(_ values: [String], _ option: String) throws -> [String: String] {
        var pairs: [String: String] = [:]
        for value in values {
            let parts = value.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2 else { throw ValidationError("\(option) \(value): not of the form ID=VALUE") }
            guard pairs.updateValue(parts[1], forKey: parts[0]) == nil else {
                throw ValidationError("\(option) \(value): \(parts[0]) stands there twice")
            }
        }
        return pairs
    }

    func run() async throws {
        try await global.reporting { _ in
            var options = PodRestoreOptions(checkpoint: absolutePath(directory))
            options.bundles = try pairs(bundle, "--bundle").mapValues(absolutePath)
            options.ids = try pairs(rename, "--rename")
            let (runtime, restore) = (try global.runtimeForServers(), options)
            let ids = try await ProgressLine.show("restoring the pod of \(directory)") {
                try await runtime.restorePod(restore)
            }
            for id in ids { print(id) }
        }
    }
}

struct PodForkCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fork",
        abstract:
            "Make a copy of a running pod of the command line, in a virtual machine of its own, that goes on apart.",
        discussion: """
            Prints the new containers' ids: that of the pod's first container is NEW, and that of each other one NEW-ID. They have \
            the memory of the others, root file systems and a network of their own, and the same bind mounts. The pod stands still until the root file \
            systems are copied. What it has in memory, keys and tokens too, the new one has.
            """)

    @OptionGroup var global: GlobalOptions

    @Option(
        help: "The directory that gets the new containers' bundles, by their ids; one that is there is used as it is.")
    var bundles: String

    @Flag(help: "Fork containers with Secrets of Kubernetes too: the new ones have them.")
    var withSecrets = false

    @Argument(help: "The pod's id, or the beginning of it.")
    var pod: String

    @Argument(help: "The id of the new pod's first container.")
    var new: String

    func run() async throws {
        try await global.reporting { _ in
            let runtime = try global.runtimeForServers()
            let ids = try await ProgressLine.show("forking pod \(pod)") {
                try await runtime.fork(
                    pod: pod, to: new, bundles: absolutePath(bundles), allowsSecrets: withSecrets)
            }
            for id in ids { print(id) }
        }
    }
}
