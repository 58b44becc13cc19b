// The guest of `martlet bench`: as the first process of a machine it does one workload, tells on the console where each
// phase begins and ends, and powers the machine off. The host takes the times, as a guest's clock is not to be trusted.
//
// What to do stands on the kernel's command line after `--`, such as `files size=268435456 files=10000`. With `load` it is a
// program like others, for a container of any runtime.
import CAgent
import Glibc
import GuestSystem
import LinuxSystem

func perform(_ words: [String]) throws {
    guard let workload = words.first else { throw Refusal("no workload on the kernel's command line") }
    switch workload {
    case "disk": try DiskWorkload(words.dropFirst()).perform()
    case "files": try FileWorkload(words.dropFirst()).perform()
    default: throw Refusal("unknown workload \(workload)")
    }
}

let words = Array(CommandLine.arguments.dropFirst())
if words.first == "load" {
    do { try LoadWorkload(words.dropFirst()).perform() } catch {
        Mark.failed("\(error)")
        exit(1)
    }
    Mark.done()
    exit(0)
}
do {
    KernelModules.loadAll()
    try perform(words)
    Mark.done()
} catch {
    Mark.failed("\(error)")
}
martlet_agent_power_off()
// A first process that ends is a panic, which ends the machine too.
exit(1)
