import Glibc
import Hypervisor
import LinuxSystem
import OCISpec
import Testing

@testable import Sandbox

@Suite struct CheckpointDirectoryTests {
    private func scratch(_ body: (String) throws -> Void) throws {
        var template = Array("/tmp/martlet-checkpoint.XXXXXX\0".utf8CString)
        let path = try #require(mkdtemp(&template).map { String(cString: $0) })
        defer {
            _ = try? ChildProcess("rm", .init(executable: "/bin/rm", arguments: ["-rf", path], descriptors: []))
                .waitForEnd(timeout: .seconds(5))
        }
        try body(path)
    }

    private func shape(_ directory: String) throws -> TemplateShape {
        for name in ["kernel", "root"] {
            try replaceFile("\(directory)/\(name)", by: "\(directory)/.new", with: Array(name.utf8))
        }
        var machine = VMConfiguration(
            name: "x", vcpus: 2, memoryMiB: 512, kernel: "\(directory)/kernel", initramfs: nil, kernelArguments: [])
        machine.rootImage = "\(directory)/root"
        machine.hasFiles = true
        return try #require(try TemplateShape(machine, tenant: ""))
    }

    private func checkpoint(_ directory: String) throws -> Checkpoint {
        Checkpoint(
            created: "2026-01-02T03:04:05.000000006Z", shape: try shape(directory), pod: "p",
            containers: ["a", "b"].map { id in
                .init(
                    plan: .init(id: id, shares: [], spec: .standard()), id: "\(id)-now", bundle: "/bundle/\(id)",
                    terminal: false, sockets: [],
                    shares: [.init(name: "1/2", guestPath: "/run/\(id)", isReadOnly: true, fileSystem: "1", root: "/")])
            },
            diskFiles: [], generation: 2,
            interfaces: [.init(hardwareAddress: [2, 0, 0, 0, 0, 1], pairs: 2)], nextStream: 7, nextTarget: 3)
    }

    @Test func aCheckpointIsReadAsItWasWritten() throws {
        try scratch { scratch in
            let path = "\(scratch)/image"
            let directory = try CheckpointDirectory(planning: path)
            #expect(access(path, F_OK) != 0)
            try directory.make()
            #expect(throws: SandboxError.self) { try directory.read() }
            let checkpoint = try checkpoint(scratch)
            try directory.finish(checkpoint)
            #expect(try CheckpointDirectory(path: path).read() == checkpoint)
            // One directory has one.
            #expect(throws: SandboxError.self) { try CheckpointDirectory(planning: path) }
            directory.discard()
            #expect(access(path, F_OK) != 0)
        }
    }

    /// Whoever clears up after a crash removes what is not finished, and what is not to stay.
    @Test func whatACrashLeavesIsRemoved() throws {
        try scratch { scratch in
            let checkpoint = try checkpoint(scratch)
            for (number, (isTemporary, isFinished)) in [(false, false), (false, true), (true, false), (true, true)]
                .enumerated()
            {
                let path = "\(scratch)/\(number)"
                let directory = try CheckpointDirectory(planning: path)
                let record = directory.record(isTemporary: isTemporary)
                // Before anything is there too.
                record.remove()
                try directory.make()
                try replaceFile(directory.machine.memory, by: "\(scratch)/.new", with: [1])
                if isFinished { try directory.finish(checkpoint) }
                record.remove()
                #expect((access(path, F_OK) == 0) == (isFinished && !isTemporary), "\(number)")
            }
            // What was there before stays.
            let other = try CheckpointDirectory(planning: scratch)
            try replaceFile(other.machine.state, by: "\(scratch)/.new", with: [1])
            other.record(isTemporary: true).remove()
            #expect(try directoryNames(scratch).contains("kernel") && !directoryNames(scratch).contains("state"))
        }
    }

    /// The containers that are to go on are exactly those of the checkpoint.
    @Test func containersAreComparedWithTheCheckpoints() throws {
        try scratch { scratch in
            let path = "\(scratch)/image"
            let directory = try CheckpointDirectory(planning: path)
            try directory.make()
            try directory.finish(checkpoint(scratch))
            #expect(
                try CheckpointSummary(directory: path).containers == [
                    .init(id: "a-now", bundle: "/bundle/a"), .init(id: "b-now", bundle: "/bundle/b"),
                ])
            try makeDirectories("\(scratch)/bundle/rootfs")
            try replaceFile(
                "\(scratch)/bundle/config.json", by: "\(scratch)/.new", with: JSON.encode(Spec.standard()))
            let bundle = try Bundle(directory: "\(scratch)/bundle")
            func refusal(_ containers: [(name: String, id: String)]) -> String {
                let containers = containers.map { RestoredContainer(name: $0.name, id: $0.id, bundle: bundle) }
                do { _ = try RestoredPod(path: path, containers, Configuration()) } catch { return "\(error)" }
                return ""
            }
            #expect(refusal([("", "x")]).contains("pod with containers [\"a-now\", \"b-now\"]"))
            #expect(refusal([("a-now", "x")]).contains("container b-now of the checkpoint: it must go on too"))
            #expect(refusal([("a-now", "x"), ("c", "y")]).contains("container c: not in the checkpoint"))
            #expect(refusal([("a-now", "x"), ("a-now", "y")]).contains("two of the same name"))
            #expect(refusal([("a-now", "x"), ("b-now", "x")]).contains("two of the same id"))
            // Those fit; the bundle has a share for its root, which the checkpoint has not.
            #expect(refusal([("a-now", "x"), ("b-now", "y")]).hasPrefix("container a-now: config.json: mounts"))
        }
    }

    /// A directory that somebody else has made stays, and what is in it.
    @Test func anothersDirectoryStays() throws {
        try scratch { scratch in
            try replaceFile("\(scratch)/other", by: "\(scratch)/.new", with: [1])
            let directory = try CheckpointDirectory(planning: scratch)
            try replaceFile(directory.machine.state, by: "\(scratch)/.new", with: [1])
            directory.discard()
            #expect(try directoryNames(scratch) == ["other"])
            #expect(throws: SandboxError.self) { try CheckpointDirectory(planning: "relative") }
        }
    }

    @Test func whatCantBeIsNamed() throws {
        try scratch { scratch in
            let good = try checkpoint(scratch)
            let changes: [(String, (inout Checkpoint) -> Void)] = [
                ("nextStream", { $0.nextStream = .max }), ("nextStream", { $0.nextStream = 0 }),
                ("nextTarget", { $0.nextTarget = .max }), ("generation", { $0.generation = .max }),
                ("generation", { $0.generation = -1 }),
                ("containers.sockets", { $0.containers[1].sockets = [.max] }),
                ("containers", { $0.containers = [] }), ("containers.id", { $0.containers[1].id = "a-now" }),
                ("containers.plan.id", { $0.containers[1].plan.id = "a" }),
                ("interfaces.pairs", { $0.interfaces[0].pairs = 1 << 40 }),
                ("interfaces.hardwareAddress", { $0.interfaces[0].hardwareAddress = [] }),
                ("interfaces", { $0.interfaces = Array(repeating: $0.interfaces[0], count: 100) }),
                ("containers.plan.id", { $0.containers[0].plan.id = "../x" }),
                ("containers.id", { $0.containers[0].id = "../x" }),
            ]
            for (number, (field, change)) in changes.enumerated() {
                var bad = good
                change(&bad)
                let directory = try CheckpointDirectory(planning: "\(scratch)/\(number)")
                try directory.make()
                try directory.finish(bad)
                var message = ""
                do { _ = try directory.read() } catch { message = "\(error)" }
                #expect(message.hasPrefix("checkpoint.json: \(field): "), "\(field): \(message)")
            }
            var future = good
            future.version = 99
            let directory = try CheckpointDirectory(planning: "\(scratch)/future")
            try directory.make()
            try directory.finish(future)
            var message = ""
            do { _ = try directory.read() } catch { message = "\(error)" }
            #expect(message.contains("version 99 (this is 2) is not supported"))
        }
    }

    @Test func anotherMachineIsNamed() throws {
        try scratch { scratch in
            let shape = try shape(scratch)
            #expect(shape.difference(from: shape) == nil)
            func difference(_ change: (inout TemplateShape) -> Void) -> String {
                var other = shape
                change(&other)
                return shape.difference(from: other) ?? ""
            }
            #expect(difference { $0.version = "9" }.contains("not 9"))
            #expect(difference { $0.host = "other" }.contains("another host"))
            #expect(difference { $0.kernel.modified += 1 }.contains("another kernel than \(scratch)/kernel"))
            #expect(difference { $0.rootImage = nil }.contains("another guest image"))
            #expect(difference { $0.kernelArguments = ["x"] }.contains("arguments"))
            #expect(difference { $0.cpu.nested = true }.contains("vm.nested"))
            #expect(difference { $0.reportsFreePages = false }.contains("memory.reporting"))
        }
    }

    /// Mounts in their order, at the places that the guest knows.
    @Test func mountsAreComparedWithTheGuests() throws {
        try scratch { scratch in
            let checkpoint = try checkpoint(scratch)
            let tree = SharedDescriptor(try OwnedDescriptor.open(scratch, O_RDONLY))
            func mount(_ place: String, _ path: String = "") -> ShareMount {
                ShareMount(
                    mount: DetachedMount(
                        tree: tree, path: path, fileSystem: "5", file: "6", isReadOnly: true, root: nil),
                    share: .init(source: "/", mounts: .all, readOnly: .none, mountPoint: place))
            }
            let shares = try checkpoint.containers[0].shares(at: [mount("/run/a")])
            #expect(shares.map(\.name) == ["1/2"] && shares[0].isReadOnly)
            for wrong in [[], [mount("/run/b")], [mount("/run/a"), mount("/run/b")], [mount("/run/a", "x")]] {
                #expect(throws: SandboxError.self) { try checkpoint.containers[0].shares(at: wrong) }
            }
        }
    }
}
