import CLinux
import Glibc
import LinuxSystem
import Synchronization

/// A virtual CPU: the loop that runs it, and the requests that other threads make of that loop. What concerns one
/// architecture's registers is in an extension in that architecture's directory.
///
/// `run` belongs to one thread; `request` may be called by any.
public final class VCPU: @unchecked Sendable {
    /// What the vCPU's thread is to do.
    enum Request: Sendable {
        /// Run the guest.
        case run
        /// Say what the vCPU does, once, and run the guest.
        case inspect
        /// Stay out of the guest until there is another request.
        case park
        /// Leave `run` for good.
        case stop
    }

    /// What the vCPU's thread reports; called on that thread.
    struct Observer: Sendable {
        var parked: @Sendable () -> Void = {}
        var inspected: @Sendable (VCPUActivity) -> Void = { _ in }
    }

    private struct Control {
        var request = Request.run
        /// How often the vCPU was asked to park: a thread that is parked still when it is asked again reports that again.
        var parks = 0
        /// The thread in `run`; 0: none.
        var thread: pid_t = 0
    }

    let index: Int
    let descriptor: OwnedDescriptor
    /// `struct kvm_run`, and the data of port accesses after it.
    let shared: Mapping
    private let control = Mutex(Control())
    /// Wakes the thread while it is parked.
    private let wake: EventDescriptor

    var state: UnsafeMutablePointer<kvm_run> { shared.base.assumingMemoryBound(to: kvm_run.self) }

    init(_ vm: VM, index: Int) throws {
        self.index = index
        descriptor = try vm.makeVCPU(index)
        shared = try Mapping(file: descriptor.raw, count: vm.kvm.vcpuMappingSize, flags: MAP_SHARED)
        wake = try EventDescriptor()
    }

    /// One of the vCPU's ioctls with a structure.
    func call<T>(_ name: String, _ request: UInt, _ argument: inout T) throws(SystemError) {
        try check(
            name, "vCPU \(index)",
            withUnsafeMutablePointer(to: &argument) {
                martlet_ioctl_pointer(descriptor.raw, request, UnsafeMutableRawPointer($0))
            })
    }

    // MARK: Requests

    /// Asks the vCPU's thread for something. Takes effect at once: the thread leaves the guest without executing a further
    /// instruction of it. `stop` is final.
    func request(_ request: Request) {
        control.withLock { control in
            if control.request == .stop { return }
            if request == .inspect, control.request != .run { return }
            control.request = request
            if request == .park { control.parks += 1 }
            if request != .run {
                state.pointee.immediate_exit = 1
                // A thread that is not in KVM_RUN yet sees the flag; one that is gets out by the signal.
                if control.thread != 0 { martlet_tgkill(control.thread, VCPUSignal.number) }
            }
            wake.signal()
        }
    }

    /// The request that the thread is to follow now. An inspection is taken by this.
    private func nextRequest() -> (Request, parks: Int) {
        control.withLock { control in
            state.pointee.immediate_exit = 0
            defer { if control.request == .inspect { control.request = .run } }
            return (control.request, control.parks)
        }
    }

    // MARK: Running

    /// Runs the guest until it ends or is stopped. Its accesses to devices go to the buses.
    func run(_ buses: Buses, observer: Observer = Observer()) -> VCPUEnd {
        VCPUSignal.unblock()
        control.withLock { $0.thread = martlet_gettid() }
        defer { control.withLock { $0.thread = 0 } }
        while true {
            if martlet_ioctl_int(descriptor.raw, MARTLET_KVM_RUN, 0) < 0 {
                guard errno == EINTR || errno == EAGAIN else {
                    return .unhandled("KVM_RUN: \(SystemError.last("vCPU \(index)").errno)")
                }
                if follow(observer) == .stop { return .stopped }
                continue
            }
            let reason = Int32(bitPattern: state.pointee.exit_reason)
            switch reason {
            case KVM_EXIT_MMIO: accessMemory(buses.memory)
            case KVM_EXIT_INTR, KVM_EXIT_IRQ_WINDOW_OPEN: continue
            case KVM_EXIT_HLT: return .halted(registers)
            case KVM_EXIT_SHUTDOWN: return .tripleFault(registers)
            case KVM_EXIT_SYSTEM_EVENT: return .systemEvent(state.pointee.system_event.type)
            default: if !handlePlatformExit(reason, buses) { return .unhandled(unhandled(reason)) }
            }
        }
    }

    /// Does what was asked for; returns when the guest is to run again, or is to be left for good.
    private func follow(_ observer: Observer) -> Request {
        var reported = 0
        while true {
            let (request, parks) = nextRequest()
            switch request {
            case .run, .stop: return request
            case .inspect: observer.inspected(activity)
            case .park:
                if reported != parks {
                    reported = parks
                    prepareForPause()
                    observer.parked()
                }
                var item = pollfd(fd: wake.descriptor.raw, events: Int16(POLLIN), revents: 0)
                poll(&item, 1, -1)
                wake.drain()
            }
        }
    }

    private func accessMemory(_ bus: Bus) {
        let address = state.pointee.mmio.phys_addr
        let count = min(Int(state.pointee.mmio.len), 8)
        let isWrite = state.pointee.mmio.is_write != 0
        withUnsafeMutableBytes(of: &state.pointee.mmio.data) { data in
            let data = UnsafeMutableRawBufferPointer(rebasing: data[..<count])
            if isWrite { bus.write(address, UnsafeRawBufferPointer(data)) } else { bus.read(address, data) }
        }
    }

    // MARK: Ends

    private func unhandled(_ reason: Int32) -> String {
        let cause =
            switch reason {
            case KVM_EXIT_INTERNAL_ERROR:
                "KVM could not go on (internal error \(state.pointee.`internal`.suberror))"
            case KVM_EXIT_FAIL_ENTRY:
                "the CPU refused to enter the guest "
                    + "(reason \(hexadecimal(state.pointee.fail_entry.hardware_entry_failure_reason)))"
            default: "KVM exit \(reason)"
            }
        return cause + (registers.map { ": \($0)" } ?? "")
    }
}

/// Where a vCPU's accesses to devices go.
struct Buses: Sendable {
    var ports = Bus()
    var memory = Bus()
}

/// Why a vCPU no longer runs. The registers are as they were then; nil where KVM does not give them.
public enum VCPUEnd: Sendable, Equatable {
    /// A request.
    case stopped
    /// HLT where there are no interrupt controllers.
    case halted(VCPURegisters?)
    /// A fault while a double fault is delivered: the CPU shuts down.
    case tripleFault(VCPURegisters?)
    /// KVM_EXIT_SYSTEM_EVENT with its type.
    case systemEvent(UInt32)
    /// An exit that this program does not handle.
    case unhandled(String)
}

/// What a vCPU does at the moment of an inspection.
enum VCPUActivity: Sendable, Equatable {
    case running
    /// It has not been started by the guest.
    case notStarted
    /// It is halted with interrupts disabled: nothing in the machine wakes it.
    case dead(VCPURegisters)
}

/// The signal that gets a thread out of KVM_RUN. Its handler does nothing.
enum VCPUSignal {
    static let number = SIGUSR1

    /// To be called before the first vCPU runs.
    static func install() throws(SystemError) {
        try check("sigaction", "SIGUSR1", martlet_ignore_with_handler(number))
    }

    /// Has this thread take the signal, whatever mask it inherited: libdispatch's threads block all signals.
    static func unblock() {
        var signals = sigset_t()
        sigemptyset(&signals)
        sigaddset(&signals, number)
        pthread_sigmask(SIG_UNBLOCK, &signals, nil)
    }
}
