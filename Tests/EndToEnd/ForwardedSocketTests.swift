import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Sockets of the host that a bundle mounts.
    @Suite struct ForwardedSocketTests {
        /// Plays a scene with a server on the host, and a bundle of `script` in which its socket is $S.
        private func play(
            _ script: String, options: [String] = ["rbind", "ro"], readOnly: Bool = false,
            _ body: (Scene, Command, String) throws -> Void
        ) throws {
            try Scene.play { scene in
                let server = try SocketServer(scene)
                defer { server.end() }
                let path = server.path
                chmod(path, 0o640)
                chown(path, 0, 33)
                let bundle = try scene.bundle(script: "S=/run/deep/down/s; \(script)") { spec in
                    spec.mounts.append(
                        Mount(destination: "/run/deep/down/s", type: "bind", source: path, options: options))
                    spec.root?.readonly = readOnly
                }
                try Program.install("sockets", in: bundle)
                try body(scene, server.command, bundle)
            }
        }

        @Test func bytesGoBothWaysToTheirEnds() throws {
            let script = """
                stat -c '%F %a %u %g' $S
                sockets echo $S 8388608; sockets half $S 100000; sockets first $S; sockets many $S 200
                """
            try play(script, readOnly: true) { scene, server, bundle in
                let outcome = try scene.run(bundle: bundle)
                #expect(
                    outcome.lines == ["socket 640 0 33", "ok", "ok", "ok", "200 good"], "\(outcome.errorText)")
                for line in ["e 8388608\n", "h 100000\n", "f 70000\n"] { try server.output?.wait(for: line) }
                let echoes = server.output?.text.split(separator: "\n").filter { $0 == "e 20000" }
                #expect(echoes?.count == 200)
            }
        }

        @Test func aDescriptorDoesNotPass() throws {
            for (mode, word) in [("pass", "can't leave the guest"), ("take", "can't enter the guest")] {
                try play("sockets \(mode) $S; sockets echo $S 10") { scene, _, bundle in
                    let outcome = try scene.run(bundle: bundle)
                    #expect(outcome.lines == ["ok", "ok"])
                    #expect(outcome.errorText.contains("passed a descriptor, which \(word)"), "\(outcome.errorText)")
                }
            }
        }

        /// The host's end comes and goes while the container runs.
        @Test func aServerThatIsAbsentIsAnEnd() throws {
            try play("sockets hold $S; sockets try $S; echo tried; read x; sockets try $S") { scene, server, bundle in
                let container = try scene.start(bundle: bundle, input: .pipe)
                try container.output?.wait(for: "held\n")
                server.child.signal(SIGKILL)
                try container.output?.wait(for: "tried\n")
                let lines = container.output?.text.split(separator: "\n") ?? []
                #expect(lines[1] == "ended" && ["end", "Connection reset by peer"].contains(lines[2]), "\(lines)")
                try container.errors?.wait(for: "Connection refused")
                // Another server at the same path.
                unlink("\(scene.directory)/socket")
                let next = try Command(Program.path("sockets"), ["serve", "\(scene.directory)/socket"])
                try next.output?.wait(for: "ready\n")
                container.input?.write("\n")
                #expect(try container.finish().lines.last == "ok")
                next.child.signal(SIGKILL)
                _ = try next.finish()
            }
        }

        /// A container that has ended closes what it had open.
        @Test func connectionsEndWithTheContainer() throws {
            try play("sockets hold $S & while ! [ -e /stop ]; do sleep 0.1; done") {
                scene, server, bundle in
                let container = try scene.start(bundle: bundle)
                try container.output?.wait(for: "held\n")
                try scene.write("\(bundle)/rootfs/stop", "")
                #expect(try container.finish().code == 0)
                try server.output?.wait(for: "h 0\n")
            }
        }

        @Test func whatCantBeForwardedIsRefused() throws {
            try play("exit 0") { scene, _, bundle in
                let off = try scene.run(bundle: bundle, global: scene.configuration("sockets.forward = false"))
                #expect(off.code != 0 && off.errorText.contains("mounts["), "\(off.errorText)")
                #expect(off.errorText.contains("a bind mount of a socket of the host (sockets.forward is false)"))
            }
            for type in [SOCK_DGRAM, SOCK_SEQPACKET] {
                try Scene.play { scene in
                    let path = "\(scene.directory)/socket"
                    let socket = SharedDescriptor(try UnixAddress.bound(path, type))
                    let bundle = try scene.bundle(script: "exit 0") { spec in
                        spec.mounts.append(
                            Mount(destination: "/s", type: "bind", source: path, options: ["bind"]))
                    }
                    let outcome = try scene.run(bundle: bundle)
                    #expect(outcome.code != 0 && outcome.errorText.contains("only stream sockets are forwarded"))
                    withExtendedLifetime(socket) {}
                }
            }
        }
    }
}

extension UnixAddress {
    /// A socket at `path`; one of SOCK_SEQPACKET listens.
    fileprivate static func bound(_ path: String, _ type: __socket_type) throws -> OwnedDescriptor {
        if type == SOCK_SEQPACKET { return try listen(path, type: type) }
        let socket = OwnedDescriptor(owning: try check("socket", path, Glibc.socket(AF_UNIX, Int32(type.rawValue), 0)))
        let raw = socket.raw
        try UnixAddress(path).with { address, length throws(SystemError) in
            _ = try check("bind", path, Glibc.bind(raw, address, length))
        }
        return socket
    }
}
