import CLinux
import Glibc
import LinuxSystem

/// Counts what the host's kernel does, in all processes, while something is measured: it tells of one start where the host does
/// nothing else.
///
/// Source: Documentation/trace/events.rst; perf_event_open(2).
final class KernelCounters {
    /// What is counted: tracepoints (Documentation/trace/events.rst), and counters of KVM's in debugfs.
    enum Event: String, CaseIterable, Sendable {
        /// Exits of vCPUs to the host's kernel, of all kinds.
        case exits = "kvm/exits"
        /// Those that are accesses to ports and registers, which mostly go on to the VMM.
        case portExits = "kvm/io_exits"
        case registerExits = "kvm/mmio_exits"
        case haltExits = "kvm/halt_exits"
        /// Faults of the second stage of address translation (EPT, NPT).
        case guestFaults = "kvm/pf_taken"
        case systemCalls = "events/raw_syscalls/sys_enter"
        case contextSwitches = "events/sched/sched_switch"
        case programs = "events/sched/sched_process_exec"
        /// Pages, or larger blocks of them, that the host's kernel handed out.
        case pages = "events/kmem/mm_page_alloc"

        fileprivate var isTracepoint: Bool { rawValue.hasPrefix("events/") }
    }

    private var tracepoints: [(event: Event, file: SharedDescriptor)] = []
    private let debug: SharedDescriptor

    /// - Throws: `BenchError` where this kernel does not count, with the reason.
    init() throws {
        debug = try Self.files("debugfs")
        let trace = try Self.files("tracefs")
        let cpus = sysconf(Int32(_SC_NPROCESSORS_ONLN))
        for event in Event.allCases where event.isTracepoint {
            guard let id = Self.number("\(event.rawValue)/id", trace) else { continue }
            for cpu in 0..<Int32(cpus) {
                let counter = martlet_count_tracepoint(id, cpu)
                guard counter >= 0 else {
                    throw BenchError("perf_event_open: \(SystemError.last(event.rawValue).errno)")
                }
                tracepoints.append((event, SharedDescriptor(OwnedDescriptor(owning: counter))))
            }
        }
    }

    /// How often each event has been so far. KVM's are those of the machines that there are.
    func read() -> [Event: UInt64] {
        var counts: [Event: UInt64] = [:]
        for (event, file) in tracepoints {
            var count: UInt64 = 0
            if Glibc.read(file.raw, &count, 8) == 8 { counts[event, default: 0] += count }
        }
        for event in Event.allCases where !event.isTracepoint { counts[event] = Self.number(event.rawValue, debug) }
        return counts
    }

    private static func files(_ type: String) throws -> SharedDescriptor {
        let root = martlet_kernel_files(type)
        guard root >= 0 else { throw BenchError("\(type): \(SystemError.last("mount").errno)") }
        return SharedDescriptor(OwnedDescriptor(owning: root))
    }

    /// The number in a file.
    private static func number(_ path: String, _ root: SharedDescriptor) -> UInt64? {
        guard let file = try? OwnedDescriptor.open(path, O_RDONLY, at: root.raw) else { return nil }
        return (try? readText(file.raw, path)).flatMap { UInt64($0.filter(\.isNumber)) }
    }
}
