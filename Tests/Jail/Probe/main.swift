import CProbe
import Glibc
import Jail
import LinuxSystem

// jail-probe KIND UID FILE… : enters the jail of a kind of process, tries to get out of it, and prints what succeeded. Started as
// the process itself is: with a control socket as descriptor 3.
do {
    let words = CommandLine.arguments
    guard words.count > 2, let kind = JailPlan.Kind(rawValue: words[1]), let user = UInt32(words[2]) else { exit(2) }
    var plan = JailPlan(kind, user: user)
    if kind == .qemu { plan.root = .only(Array(words.dropFirst(3))) }
    let contents = try Jail.enter(plan, lifeline: plan.endsWithParent ? 3 : nil, onTrap: probe_fail_on_trap)
    probe_run()
    withExtendedLifetime(contents) {}
} catch {
    print("\(error)")
    exit(1)
}
