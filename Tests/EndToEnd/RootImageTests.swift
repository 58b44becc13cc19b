import OCISpec
import Testing

extension Containers {
    /// The root image, which all guests have from the host's page cache.
    @Suite(.enabled(if: Lab.hasRootImage, "the guest has no root image")) struct RootImageTests {
        /// A bundle whose script may do everything in its machine.
        private func privileged(_ scene: Scene, _ script: String) throws -> String {
            try scene.bundle(script: script) { spec in
                let all = Capabilities.everything
                spec.process?.capabilities = Capabilities(bounding: all, effective: all, permitted: all)
                spec.linux?.resources = .init()
                spec.linux?.resources?.devices = [.init(allow: true, access: "rwm")]
            }
        }

        @Test func itIsMappedAndNotCopied() throws {
            try Scene.play { scene in
                let script = "mkdir /tmp/m && mount -t erofs -o ro /dev/pmem0 /tmp/m && ls /tmp/m && cat /proc/cmdline"
                let outcome = try scene.run(bundle: privileged(scene, script))
                #expect(outcome.code == 0, "\(outcome.errorText)")
                #expect(outcome.lines.dropLast() == ["dev", "init", "mnt", "proc", "run", "sys", "tmp"])
                #expect(outcome.lines.last?.contains("root=/dev/pmem0 rootwait ro") == true, "\(outcome.text)")
            }
        }

        /// With the agent as a copy in an initramfs it would be 80 MiB.
        @Test(.enabled(if: Lab.driver == .kvm, "of the built-in VMM's memory file"))
        func aGuestTouchesLittleMemory() throws {
            try Scene.play { scene in
                let id = scene.newID()
                let run = try scene.start(bundle: scene.bundle(script: "echo up; read x"), id: id, input: .pipe)
                try run.output?.wait(for: "up\n")
                let vmm = try Leftovers.process("martlet-vmm", in: "\(scene.root)/\(id)/state.json")
                let blocks = try Command.shell(
                    """
                    for file in /proc/\(vmm)/fd/*; do
                        case $(readlink $file) in /memfd:martlet-*|/martlet-*) stat -Lc %b $file;; esac
                    done
                    """)
                let mebibytes = try #require(blocks.split(separator: "\n").first.flatMap { Int($0) }) / 2048
                #expect((16..<56).contains(mebibytes), "\(blocks)")
                run.input?.write("\n")
                #expect(try run.finish().code == 0)
            }
        }

        @Test(.enabled(if: Lab.driver == .kvm, "QEMU ignores the write"))
        func aWriteEndsThePodWithItsCause() throws {
            try Scene.play { scene in
                let before = try Command.shell("sha256sum \(Lab.guest)/root.erofs").trimmed
                let script = "echo up; dd if=/dev/zero of=/dev/pmem0 bs=4096 count=1 conv=fsync; sleep 100"
                let outcome = try scene.run(bundle: privileged(scene, script))
                #expect(outcome.code == 255 && outcome.text.contains("up"), "\(outcome.errorText)")
                let cause = "the virtual machine failed: the guest wrote to its read-only root image at 0x"
                #expect(outcome.errorText.contains(cause), "\(outcome.errorText)")
                #expect(try Command.shell("sha256sum \(Lab.guest)/root.erofs").trimmed == before)
            }
        }
    }
}
