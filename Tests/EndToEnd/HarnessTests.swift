import Glibc
import LinuxSystem
import Testing

extension Containers {
    @Suite struct HarnessTests {
        /// The other tests rely on it: whatever a run leaves behind is seen.
        @Test func whatIsLeftIsSeen() throws {
            try Scene.play { scene in
                let before = Leftovers.processes()
                #expect(Leftovers.settled(of: scene, before: before) == [])
                // An orphan, as a daemon would be.
                let pid = try #require(Int32(Command.shell("setsid sleep 1000 >/dev/null 2>&1 & echo -n $!")))
                let mountPoint = try scene.makeDirectory("mounted")
                try Command.run("mount", ["-t", "tmpfs", "tmpfs", mountPoint])
                let socket = "\(scene.directory)/socket"
                let listener = SharedDescriptor(try UnixAddress.listen(socket))
                try scene.write("root/state", "")
                let left = withExtendedLifetime(listener) { Leftovers.settled(of: scene, before: before) }
                kill(pid, SIGKILL)
                try Command.run("umount", [mountPoint])
                unlink("\(scene.root)/state")
                let kinds = [
                    "process \(pid) (0 memory files): sleep 1000", "mount: ", "socket: ", "file: \(scene.root)/state",
                ]
                for kind in kinds { #expect(left.contains { $0.hasPrefix(kind) }, "\(left)") }
                #expect(left.count == kinds.count, "\(left)")
            }
        }
    }
}
