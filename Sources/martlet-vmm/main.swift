import DeviceService
import Glibc
import LinuxSystem
import VMMControl

/// The control socket's number, by agreement with whoever starts this program.
let controlDescriptor: Int32 = 3

/// Nobody: the process has no capability, and nothing is this user's.
let nobody: uid_t = 65534

do {
    let parent = getppid()
    try Privileges.dieWithParent(parent)
    signal(SIGPIPE, SIG_IGN)
    try Privileges.raiseOpenFiles()
    try Privileges(capabilities: [], user: nobody, group: nobody).apply(parent: parent)
    let control = ControlSocket(SharedDescriptor(OwnedDescriptor(owning: controlDescriptor)))
    try MachineProcess(control).run()
} catch {
    logError("\(error)")
    exit(1)
}
