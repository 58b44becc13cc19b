import CAgent
import Glibc
import GuestSystem
import LinuxSystem

/// The guest as a machine: its facts, its clock, its random numbers, its end.
struct GuestMachine: Sendable {
    let configuration: AgentConfiguration

    /// As `uname -r` prints it.
    var kernelVersion: String {
        let text = try? readText("/proc/sys/kernel/osrelease")
        return text.map { String($0.prefix { $0 != "\n" }) } ?? ""
    }

    var processorCount: UInt32 { UInt32(clamping: sysconf(Int32(_SC_NPROCESSORS_ONLN))) }

    /// Bytes.
    var memorySize: UInt64 { martlet_agent_memory_size() }

    /// Sets the clock to `now`, nanoseconds since the epoch.
    func setClock(_ now: Int64) throws(AgentFailure) {
        guard now > 0 else { throw AgentFailure(.invalidArgument, "\(now) is not a time after 1970") }
        var time = timespec(tv_sec: Int(now / 1_000_000_000), tv_nsec: Int(now % 1_000_000_000))
        try during("CLOCK_REALTIME") { try check("clock_settime", "", clock_settime(CLOCK_REALTIME, &time)) }
    }

    /// Mixes entropy into the kernel's pool, and has the kernel's generator use it.
    func reseed(_ entropy: [UInt8]) throws(AgentFailure) {
        try during("/dev/urandom") {
            let device = try OwnedDescriptor.open("/dev/urandom", O_RDWR)
            var left = entropy[...]
            while !left.isEmpty {
                // As much as one call takes.
                let part = Array(left.prefix(4096))
                left = left.dropFirst(4096)
                try check("RNDADDENTROPY", "", martlet_agent_reseed(device.raw, part, Int32(part.count)))
            }
        }
    }

    /// Ends every container's processes and the machine, soon after this returned: the reply gets through as a rule, and a host that
    /// does not get it sees the machine's end.
    func powerOff() throws(AgentFailure) {
        try during("start to power off") {
            try startThread("power off") {
                usleep(5_000)
                do {
                    for group in [configuration.controlGroup, configuration.machineGroup] {
                        try Cgroup(path: group).remove(within: .seconds(2))
                    }
                } catch {
                    Console.report("\(error)")
                }
                guard configuration.isInit else { exit(0) }
                Shares.unmount(from: configuration.shares)
                sync()
                martlet_agent_power_off()
                Console.report("the machine does not power off")
            }
        }
    }
}
