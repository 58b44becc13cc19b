import DeviceService
import Glibc
import Jail
import LinuxSystem
import VMMControl

/// The control socket's number, by agreement with whoever starts this program.
let controlDescriptor: Int32 = 3

do {
    let words = CommandLine.arguments.dropFirst()
    if words.first == "container" { try ContainerProcess.run() }
    let arguments = try Arguments(words)
    signal(SIGPIPE, SIG_IGN)
    umask(0)
    if arguments.plan.kind == .qemu { try Jail.execute(arguments.command, arguments.plan, lifeline: controlDescriptor) }
    let rings = arguments.plan.kind == .disk ? BlockProcess.makeRings() : nil
    let contents = try Jail.enter(arguments.plan, lifeline: controlDescriptor)
    let control = ControlSocket(SharedDescriptor(OwnedDescriptor(owning: controlDescriptor)))
    switch (arguments.plan.kind, rings) {
    case (.vsock, _): try VsockProcess(control).run()
    case (.disk, let rings?): try BlockProcess(control, rings).run()
    default: try FilesProcess(control, contents).run()
    }
} catch {
    logError("\(error)")
    exit(1)
}
