import DeviceService
import Glibc
import LinuxSystem
import VMMControl

/// The control socket's number, by agreement with whoever starts this program.
let controlDescriptor: Int32 = 3

/// Whoever needs no privileges at all.
let nobody: uid_t = 65534

do {
    let words = CommandLine.arguments.dropFirst()
    if words.first == "container" { try ContainerProcess.run() }
    let parent = getppid()
    try Privileges.dieWithParent(parent)
    let arguments = try Arguments(words)
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
    logError("\(error)")
    exit(1)
}
