import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// `martlet pod freeze`: disks that stand still while a command of the host's runs.
    @Suite struct DiskFreezeTests {
        @Test func aCopyOfDisksThatStandStillIsWhole() throws {
            try Scene.play { scene in
                let volume = "\(scene.directory)/volume"
                try Command.shell("truncate -s 32M \(volume) && mkfs.ext4 -q -F \(volume)")
                let container = try CommandLineContainer(scene)
                let id = container.id
                let script =
                    "while :; do echo x >>/data/log; mv /data/log /data/other; mv /data/other /data/log; sync; done"
                let bundle = try scene.bundle(script: script) { spec in
                    spec.mounts.append(Mount(destination: "/data", type: "ext4", source: volume))
                }
                _ = try container.create(bundle: bundle)
                try container.succeed("start", id)
                func goesOn() throws {
                    try container.succeed("exec", id, "sh", "-c", "sync; touch /data/seen; sync")
                }
                try goesOn()

                let copies = "cp \(volume) \(volume).1 && sleep 1 && cp \(volume) \(volume).2 && exit 7"
                let frozen = try container.begin(["pod", "freeze", id, "--", "sh", "-c", copies])
                    .finish(within: .seconds(60))
                #expect(frozen.code == 7, "\(frozen)")
                try Command.shell("cmp \(volume).1 \(volume).2 && e2fsck -f -n \(volume).1")
                // Nothing is left in the journal.
                #expect(try !Command.shell("dumpe2fs -h \(volume).1 2>/dev/null").contains("needs_recovery"))
                try goesOn()

                let late = try container.begin(["pod", "freeze", "--timeout", "1", id, "--", "sleep", "4"])
                    .finish(within: .seconds(60))
                #expect(late.code == 255 && late.errorText.contains("went on after 1 s"), "\(late)")
                let missing = try container.begin(["pod", "freeze", id, "--", "/no/such"]).finish()
                #expect(missing.code == 255 && missing.errorText.contains("/no/such"), "\(missing)")
                try goesOn()
                try container.succeed("delete", "--force", id)
                try Command.shell("e2fsck -f -p \(volume) >/dev/null; [ $? -le 1 ]")
            }
        }

        @Test func aPodWithoutDisksIsRefusedByName() throws {
            try Scene.play { scene in
                let container = try CommandLineContainer(scene)
                let id = container.id
                _ = try container.create(bundle: scene.bundle(args: ["sleep", "1000"]))
                let outcome = try container.begin(["pod", "freeze", id, "--", "true"]).finish()
                #expect(
                    outcome.code == 255 && outcome.errorText.contains("has no disk that can be written"), "\(outcome)")
                try container.succeed("delete", "--force", id)
            }
        }
    }
}
