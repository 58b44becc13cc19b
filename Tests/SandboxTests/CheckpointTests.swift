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
            created: "2026-01-02T03:04:05.000000006Z", shape: try shape(directory),
            container: .init(id: "a", shares: [], spec: .standard()), terminal: false, sockets: [],
            shares: [.init(name: "1/2", guestPath: "/run/a", isReadOnly: true, fileSystem: "1", root: "/")],
            generation: 2,
            interfaces: [.init(hardwareAddress: [2, 0, 0, 0, 0, 1], pairs: 2)], nextStream: 7, nextTarget: 3)
    }

    @Test func aCheckpointIsReadAsItWasWritten() throws {
        try scratch { scratch in
            let path = "\(scratch)/image"
            let directory = try CheckpointDirectory(making: path)
            #expect(throws: SandboxError.self) { try directory.read() }
            let checkpoint = try checkpoint(scratch)
            try directory.finish(checkpoint)
            #expect(try CheckpointDirectory(path: path).read() == checkpoint)
            // One directory has one.
            #expect(throws: SandboxError.self) { try CheckpointDirectory(making: path) }
            directory.discard()
            #expect(access(path, F_OK) != 0)
        }
    }

    /// A directory that somebody else has made stays, and what is in it.
    @Test func anothersDirectoryStays() throws {
        try scratch { scratch in
            try replaceFile("\(scratch)/other", by: "\(scratch)/.new", with: [1])
            let directory = try CheckpointDirectory(making: scratch)
            try replaceFile(directory.machine.state, by: "\(scratch)/.new", with: [1])
            directory.discard()
            #expect(try directoryNames(scratch) == ["other"])
            #expect(throws: SandboxError.self) { try CheckpointDirectory(making: "relative") }
        }
    }

    @Test func whatCantBeIsNamed() throws {
        try scratch { scratch in
            let good = try checkpoint(scratch)
            let changes: [(String, (inout Checkpoint) -> Void)] = [
                ("nextStream", { $0.nextStream = .max }), ("nextStream", { $0.nextStream = 0 }),
                ("nextTarget", { $0.nextTarget = .max }), ("generation", { $0.generation = .max }),
                ("generation", { $0.generation = -1 }), ("sockets", { $0.sockets = [.max] }),
                ("interfaces.pairs", { $0.interfaces[0].pairs = 1 << 40 }),
                ("interfaces.hardwareAddress", { $0.interfaces[0].hardwareAddress = [] }),
                ("interfaces", { $0.interfaces = Array(repeating: $0.interfaces[0], count: 100) }),
                ("container.id", { $0.container.id = "../x" }),
            ]
            for (number, (field, change)) in changes.enumerated() {
                var bad = good
                change(&bad)
                let directory = try CheckpointDirectory(making: "\(scratch)/\(number)")
                try directory.finish(bad)
                var message = ""
                do { _ = try directory.read() } catch { message = "\(error)" }
                #expect(message.hasPrefix("checkpoint.json: \(field): "), "\(field): \(message)")
            }
            var future = good
            future.version = 99
            let directory = try CheckpointDirectory(making: "\(scratch)/future")
            try directory.finish(future)
            var message = ""
            do { _ = try directory.read() } catch { message = "\(error)" }
            #expect(message.contains("version 99 (this is 1) is not supported"))
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
                    mountPoint: place)
            }
            let shares = try checkpoint.shares(at: [mount("/run/a")])
            #expect(shares.map(\.name) == ["1/2"] && shares[0].isReadOnly)
            for wrong in [[], [mount("/run/b")], [mount("/run/a"), mount("/run/b")], [mount("/run/a", "x")]] {
                #expect(throws: SandboxError.self) { try checkpoint.shares(at: wrong) }
            }
        }
    }
}
