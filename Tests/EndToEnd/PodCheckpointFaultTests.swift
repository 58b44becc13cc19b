import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// What is left where a process is killed, or a disk is full, while a pod is saved or copied. The built-in VMM alone can save one.
    @Suite(
        .enabled(if: Lab.driver == .kvm, "the driver under test is not the built-in VMM, which alone saves machines"))
    struct PodCheckpointFaultTests {
        /// The command is killed while it copies a container: the container goes on, and nothing is left but the half bundle, which the
        /// next fork to it replaces. The server is killed while it writes a checkpoint: nothing is left of that.
        @Test func aKilledForkLeavesNothing() throws {
            try Scene.play { scene in
                let pair = try PodPair(scene)
                let copies = "\(scene.directory)/copies"
                let new = scene.newID()
                for delay in [0.2, 0.6, 1.0, 1.4] {
                    let fork = try pair.first.begin(
                        ["pod", "fork", "--bundles", copies, pair.pod, new], output: .null, errors: .null)
                    usleep(UInt32(delay * 1e6) * UInt32(Lab.patience))
                    fork.child.signal(SIGKILL)
                    _ = try fork.finish(within: .seconds(30))
                    for id in [new, "\(new)-\(pair.second.id)"] { try pair.first.succeed("delete", "--force", id) }
                    for container in pair.both {
                        try container.wait(for: "running")
                        LineFile.wait(container.output, lines: LineFile.count(container.output) + 2)
                    }
                    let end = ContinuousClock.now + .seconds(10) * Lab.patience
                    let left = { Leftovers.list(scene.root).filter { $0.hasPrefix(".fork") } }
                    while !left().isEmpty, ContinuousClock.now < end { usleep(50_000) }
                    #expect(left().isEmpty, "after \(delay) s")
                }
                let forked = try pair.first.detached(
                    ["pod", "fork", "--bundles", copies, pair.pod, new],
                    into: "\(scene.directory)/forked")
                try #require(forked.code == 0, "\(forked.errorText)")
                for id in [new, "\(new)-\(pair.second.id)"] { try pair.first.succeed("delete", "--force", id) }

                let state = "\(scene.root)/\(pair.pod)/state.json"
                let server = try Leftovers.process("server", in: state)
                let image = "\(scene.directory)/image"
                let command = try pair.first.begin(
                    ["pod", "checkpoint", "--leave-running", pair.pod, image], output: .null, errors: .null)
                let end = ContinuousClock.now + .seconds(20) * Lab.patience
                while access("\(image)/memory", F_OK) != 0, ContinuousClock.now < end { usleep(1000) }
                kill(server, SIGKILL)
                #expect(try command.finish(within: .seconds(60)).code != 0)
                try pair.delete()
                #expect(access(image, F_OK) != 0, "\(Leftovers.list(image))")
            }
        }

        /// A process of the machine is killed while a checkpoint is written: nothing is left of it, and the containers have ended.
        @Test func aKilledMachineLeavesNoCheckpoint() throws {
            try Scene.play { scene in
                for victim in [Victim.machine, .files] {
                    let pair = try PodPair(scene, number: victim.rawValue)
                    let process = try Leftovers.process(victim.process, in: "\(scene.root)/\(pair.pod)/state.json")
                    let image = "\(scene.directory)/image"
                    let command = try pair.first.begin(["pod", "checkpoint", "--leave-running", pair.pod, image])
                    let end = ContinuousClock.now + .seconds(20) * Lab.patience
                    while access("\(image)/memory", F_OK) != 0, ContinuousClock.now < end { usleep(1000) }
                    victim.strike(process)
                    #expect(try command.finish(within: .seconds(60)).code != 0)
                    #expect(access(image, F_OK) != 0, "\(Leftovers.list(image))")
                    for container in pair.both { try container.wait(for: "stopped") }
                    try pair.delete()
                }
            }
        }

        /// No room for a checkpoint: nothing is left of it, and all containers go on.
        @Test func aFullDiskLeavesThePodAsItIs() throws {
            try Scene.play { scene in
                let pair = try PodPair(scene)
                let full = try scene.makeDirectory("full")
                try Command.shell("mount -t tmpfs -o size=4m full \(full)")
                defer { umount2(full, Int32(MNT_DETACH)) }
                for arguments in [["--leave-running"], []] {
                    let noRoom = try pair.first.begin(
                        ["pod", "checkpoint"] + arguments + [pair.pod, "\(full)/image"]
                    ).finish(within: .seconds(120))
                    #expect(noRoom.code == 1 && noRoom.errorText.contains("No space left"), "\(noRoom.errorText)")
                    #expect(Leftovers.list(full).isEmpty)
                    let received = "\(pair.data)/received"
                    LineFile.wait(received, lines: LineFile.count(received) + 3)
                    for container in pair.both { #expect(try container.state()?.status == "running") }
                }
                try pair.delete()
            }
        }
    }
}
