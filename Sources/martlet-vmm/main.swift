import DeviceService
import Glibc
import Jail
import LinuxSystem
import VMMControl

/// The control socket's number, by agreement with whoever starts this program.
let controlDescriptor: Int32 = 3

do {
    // martlet-vmm [--uid N]
    let words = CommandLine.arguments
    let user = words.count == 3 && words[1] == "--uid" ? UInt32(words[2]) : nil
    if user == nil, words.count > 1 { throw RequestError("usage: martlet-vmm [--uid N]") }
    signal(SIGPIPE, SIG_IGN)
    let rings = MachineDevices.makeRings()
    _ = try Jail.enter(JailPlan(.vmm, user: user ?? JailPlan.nobody), lifeline: controlDescriptor)
    let control = ControlSocket(SharedDescriptor(OwnedDescriptor(owning: controlDescriptor)))
    try MachineProcess(control, rings).run()
} catch {
    logError("\(error)")
    exit(1)
}
