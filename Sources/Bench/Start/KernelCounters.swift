import CLinux
import Glibc
import LinuxSystem

/// Counts what the host's kernel does, in all processes, while something is measured: it tells of one start where the host does
/// nothing else.
///
/// Source: Documentation/trace/events.rst; perf_event_open(2).
final class KernelCounters {
    /// What is counted.
    enum Event: String, CaseIterable, Sendable {
        /// Exits of vCPUs to the host's kernel.
        case exits = "kvm/kvm_exit"
        /// Exits that go on to the VMM.
        case userExits = "kvm/kvm_userspace_exit"
        /// Faults of the second stage of address translation (EPT, NPT).
        case guestFaults = "kvm/kvm_page_fault"
        case interrupts = "kvm/kvm_inj_virq"
        case systemCalls = "raw_syscalls/sys_enter"
        case contextSwitches = "sched/sched_switch"
        case programs = "sched/sched_process_exec"
        /// Pages that the host's kernel handed out.
        case pages = "kmem/mm_page_alloc"
    }

    private var counters: [(event: Event, file: SharedDescriptor)] = []

    /// - Throws: `BenchError` where this kernel does not count, with the reason.
    init() throws {
        let root = martlet_kernel_files("tracefs")
        guard root >= 0 else { throw BenchError("tracefs: \(SystemError.last("mount").errno)") }
        let files = OwnedDescriptor(owning: root)
        let cpus = sysconf(Int32(_SC_NPROCESSORS_ONLN))
        for event in Event.allCases {
            let path = "events/\(event.rawValue)/id"
            guard
                let file = try? OwnedDescriptor.open(path, O_RDONLY, at: files.raw),
                let text = try? readText(file.raw, path), let id = UInt64(text.filter(\.isNumber))
            else { continue }
            for cpu in 0..<Int32(cpus) {
                let counter = martlet_count_tracepoint(id, cpu)
                guard counter >= 0 else { throw BenchError("perf_event_open: \(SystemError.last(path).errno)") }
                counters.append((event, SharedDescriptor(OwnedDescriptor(owning: counter))))
            }
        }
    }

    /// How often each event has been since the counters were made.
    func read() -> [Event: UInt64] {
        var counts: [Event: UInt64] = [:]
        for (event, file) in counters {
            var count: UInt64 = 0
            if Glibc.read(file.raw, &count, 8) == 8 { counts[event, default: 0] += count }
        }
        return counts
    }
}
