// The guest of `martlet bench`: as the first process of a machine it does one workload, tells on the console where each
// phase begins and ends, and powers the machine off. The host takes the times, as a guest's clock is not to be trusted.
//
// What to do stands on the kernel's command line after `--`, such as `files size=268435456 files=10000`.
import CAgent
import Glibc
import GuestSystem
import LinuxSystem

func perform(_ words: [String]) throws {
    guard let workload = words.first else { throw Refusal("no workload on the kernel's command line") }
    switch workload {
    case "files": try FileWorkload(words.dropFirst()).perform()
    default: throw Refusal("unknown workload \(workload)")
    }
}

do {
    KernelModules.loadAll()
    try perform(Array(CommandLine.arguments.dropFirst()))
    Mark.done()
} catch {
    Mark.failed("\(error)")
}
martlet_agent_power_off()
// A first process that ends is a panic, which ends the machine too.
exit(1)
