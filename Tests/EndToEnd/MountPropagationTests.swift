import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// What the host mounts below a source of a bind mount while the container runs.
    @Suite struct MountPropagationTests {
        /// A shared mount of the host's, as `/` is where systemd runs, with a directory `m` in it.
        private static func withSharedMount(_ scene: Scene, _ body: (String) throws -> Void) throws {
            let host = try scene.makeDirectory("host")
            try Command.shell("mount -t tmpfs none \(host) && mount --make-shared \(host) && mkdir -p \(host)/d/m")
            defer { _ = try? Command.shell("umount -R -l \(host)") }
            try body(host)
        }

        private static func wait(_ what: String, _ isSo: () throws -> Bool) rethrows {
            let end = ContinuousClock.now + .seconds(20) * Lab.patience
            while try !isSo() {
                guard ContinuousClock.now < end else {
                    Issue.record("\(what): not so")
                    return
                }
                usleep(50_000)
            }
        }

        @Test func laterMountsAppearWhereTheMountIsASlave() throws {
            try Scene.play { scene in
                try Self.withSharedMount(scene) { host in
                    try Command.shell(
                        "mkdir \(host)/d/old && mount -t tmpfs none \(host)/d/old && touch \(host)/d/old/f")
                    let container = try CommandLineContainer(scene)
                    let id = container.id
                    let bundle = try scene.bundle(args: ["sleep", "1000"]) { spec in
                        for (destination, option) in [("/slave", "rslave"), ("/private", "rprivate")] {
                            spec.mounts.append(
                                Mount(
                                    destination: destination, type: "bind", source: "\(host)/d",
                                    options: ["rbind", option]))
                        }
                    }
                    _ = try container.create(bundle: bundle)
                    // Before the start too.
                    try Command.shell("mount -t tmpfs none \(host)/d/m && echo one >\(host)/d/m/one")
                    try container.succeed("start", id)
                    func ls(_ path: String) throws -> String {
                        try container.begin(["exec", id, "ls", path]).finish().text
                    }
                    try Self.wait("a mount from before the start") { try ls("/slave/m") == "one\n" }
                    #expect(try ls("/private/m") == "" && ls("/private/old") == "f\n" && ls("/slave/old") == "f\n")
                    // Written from both sides.
                    try container.succeed("exec", id, "sh", "-c", "echo two >/slave/m/two")
                    #expect(try Command.shell("cat \(host)/d/m/two") == "two\n")

                    // In a mount that came later, read-only.
                    try Command.shell(
                        "mkdir \(host)/d/m/deep && mount -t tmpfs -o ro none \(host)/d/m/deep && mount -t tmpfs none \(host)/d/old"
                    )
                    try Self.wait("a mount in a later one") {
                        try container.begin(["exec", id, "touch", "/slave/m/deep/x"]).finish().errorText
                            .contains("Read-only")
                    }
                    try Self.wait("a mount over another one") { try ls("/slave/old") == "" }
                    try Command.shell("umount \(host)/d/old")
                    try Self.wait("the mount below again") { try ls("/slave/old") == "f\n" }
                    // Gone on the host: gone in the guest, and the host's file system is free.
                    try Command.shell("umount \(host)/d/m/deep && umount \(host)/d/m")
                    try Self.wait("an unmounted one") { try ls("/slave/m") == "" }

                    // Over the source itself, as a driver does that has started anew.
                    try Command.shell("mount -t tmpfs none \(host)/d && touch \(host)/d/new")
                    try Self.wait("a mount over the source") { try ls("/slave") == "new\n" }
                    try Command.shell("umount \(host)/d")
                    try Self.wait("the source again") { try ls("/slave") == "m\nold\n" }

                    // 30 times, and nothing is left of it.
                    for _ in 0..<30 {
                        try Command.shell(
                            "mount -t tmpfs none \(host)/d/m && touch \(host)/d/m/x && umount \(host)/d/m")
                    }
                    try Command.shell("mount -t tmpfs none \(host)/d/m && echo end >\(host)/d/m/end")
                    try Self.wait("the last one") { try ls("/slave/m") == "end\n" }
                    #expect(
                        try container.begin(["exec", id, "grep", "-c", " /slave/m ", "/proc/self/mountinfo"]).finish()
                            .text
                            == "1\n")
                    try container.succeed("delete", "--force", id)
                    try Command.shell("umount \(host)/d/m")
                }
            }
        }

        /// Kubernetes' mountPropagation HostToContainer.
        @Test(.enabled(if: CRI.obstacle == nil, "\(CRI.obstacle ?? "")"))
        func aPodFollowsTheHost() throws {
            try CRI.play { cri in
                try Self.withSharedMount(cri.scene) { host in
                    let pod = try cri.run()
                    let containers = try ["one", "two"].map { name in
                        try pod.start(name) {
                            $0["mounts"] = [
                                [
                                    "container_path": "/volume", "host_path": "\(host)/d",
                                    "propagation": .string(
                                        name == "one" ? "PROPAGATION_HOST_TO_CONTAINER" : "PROPAGATION_PRIVATE"),
                                ]
                            ]
                        }
                    }
                    try Command.shell("mount -t tmpfs none \(host)/d/m && echo later >\(host)/d/m/file")
                    try Self.wait("a later mount") {
                        try containers[0].shell("cat /volume/m/file || true") == "later\n"
                    }
                    #expect(try containers[1].shell("ls /volume/m") == "")
                    try containers[0].stop(timeout: 0)
                    try containers[0].remove()
                    try Command.shell("umount \(host)/d/m")
                    try pod.remove()
                }
            }
        }
    }
}
