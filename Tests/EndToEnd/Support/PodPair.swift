import Glibc
import LinuxSystem
import OCISpec
import Testing

/// A pod of the command line with two containers, each of which counts into its output and over a connection to the other one.
struct PodPair {
    let pod: String
    let first: CommandLineContainer
    let second: CommandLineContainer
    let bundles: [String]
    /// Both have it at /data.
    let data: String
    var both: [CommandLineContainer] { [first, second] }

    init(_ scene: Scene, number: String = "") throws {
        (pod, data) = ("\(scene.token)-pod\(number)", try scene.makeDirectory("pod-data\(number)"))
        first = try CommandLineContainer(scene)
        second = CommandLineContainer(like: first)
        let (group, data) = (pod, data)
        let edit: (inout Spec) -> Void = { spec in
            spec.annotations["io.containerd.runc.v2.group"] = group
            spec.root?.readonly = false
            spec.hostname = "host"
            spec.mounts.append(
                Mount(destination: "/data", type: "bind", source: data, options: ["rbind", "rw"]))
        }
        let count = "n=0; while ! test -e /data/stop; do n=$((n+1)); echo $n; sleep 0.1; done"
        bundles = [
            try scene.bundle(
                script:
                    "( while ! test -e /data/stop; do sleep 0.1; done ) | nc -l -p 7000 >/data/received & \(count); wait",
                edit: edit),
            try scene.bundle(
                script: "( \(count) ) | nc 127.0.0.1 7000 & \(count); wait", edit: edit),
        ]
        for (container, bundle) in zip(both, bundles) {
            try container.create(bundle: bundle)
            try container.succeed("start", container.id)
            LineFile.wait(container.output, lines: 1)
        }
    }

    /// The options of `pod restore` that name both bundles.
    var bundleOptions: [String] { zip(both, bundles).map { "--bundle=\($0.id)=\($1)" } }

    func delete() throws { for container in both { try container.succeed("delete", "--force", container.id) } }
}

/// Files that containers count into.
enum LineFile {
    /// Waits until a file has more lines than that.
    static func wait(_ path: String, lines: Int, sourceLocation: SourceLocation = #_sourceLocation) {
        let count = { (Leftovers.read(path) ?? "").split(separator: "\n").count }
        let end = ContinuousClock.now + .seconds(20) * Lab.patience
        while count() <= lines, ContinuousClock.now < end { usleep(20_000) }
        #expect(count() > lines, "\(path)", sourceLocation: sourceLocation)
    }

    static func count(_ path: String) -> Int { (Leftovers.read(path) ?? "").split(separator: "\n").count }
}

extension CommandLineContainer {
    /// A command whose containers outlive it and write into a file.
    func detached(_ arguments: [String], into output: String) throws -> Outcome {
        let file = try SharedDescriptor(
            OwnedDescriptor.open(output, O_WRONLY | O_CREAT | O_APPEND, mode: 0o644))
        let errors = "\(scene.directory)/errors"
        let log = try SharedDescriptor(OwnedDescriptor.open(errors, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644))
        let command = try begin(arguments, output: .descriptor(file), errors: .descriptor(log))
        var outcome = try command.finish(within: .seconds(180))
        outcome.errors = Array((Leftovers.read(errors) ?? "").utf8)
        return outcome
    }

    /// A command that takes long, and must succeed.
    func succeedSlowly(_ arguments: String...) throws {
        let outcome = try begin(arguments).finish(within: .seconds(120))
        try #require(outcome.code == 0, "\(arguments): \(outcome.errorText)")
    }
}
