import Glibc

/// A program of the tests that serves a socket of the host.
struct SocketServer {
    let path: String
    let command: Command

    init(_ scene: Scene) throws {
        path = "\(scene.directory)/socket"
        command = try Command(Program.path("sockets"), ["serve", path])
        try command.output?.wait(for: "ready\n")
    }

    func end() {
        command.child.signal(SIGKILL)
        _ = try? command.finish()
    }
}
