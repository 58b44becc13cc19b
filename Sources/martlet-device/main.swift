import Glibc
import LinuxSystem
import VMMControl

/// The control socket's number, by agreement with whoever starts this program.
let controlDescriptor: Int32 = 3

func fail(_ message: String) -> Never {
    complain(message)
    exit(1)
}

func complain(_ message: String) {
    let line = Array("martlet-device: \(message)\n".utf8)
    _ = write(2, line, line.count)
}

do {
    let parent = getppid()
    try Privileges.dieWithParent(parent)
    let arguments = try Arguments(CommandLine.arguments.dropFirst())
    signal(SIGPIPE, SIG_IGN)
    umask(0)
    try Privileges.raiseOpenFiles()
    try arguments.privileges.apply(parent: parent)
    let control = ControlSocket(SharedDescriptor(OwnedDescriptor(owning: controlDescriptor)))
    switch arguments.device {
    case .vsock: try VsockProcess(control).run()
    case .files: try FilesProcess(control).run()
    case .blk: try BlockProcess(control).run()
    }
} catch {
    fail("\(error)")
}
