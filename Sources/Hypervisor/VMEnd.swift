public import LinuxSystem

/// Why a virtual machine has ended.
public enum VMEnd: Sendable, Equatable, CustomStringConvertible {
    /// The guest powered itself off, or the host asked for it.
    case poweredOff
    /// The guest's kernel panicked or reset the machine; the kernel's own words where it said any.
    case guestCrashed(String)
    /// A process that the VM needs has ended; `output` is what it printed last.
    case processEnded(name: String, how: ProcessEnd, output: String = "")
    /// A device found the guest's rings malformed.
    case deviceBroken(name: String, reason: String)
    /// The machine under the guest could not go on.
    case machineFailed(String)
    /// The host ended the VM, for this reason.
    case ended(String)

    public var description: String {
        switch self {
        case .poweredOff: "the guest powered off"
        case .guestCrashed(let reason): "the guest crashed: \(reason)"
        case .processEnded(let name, let how, let output): "\(name) \(how)" + (output.isEmpty ? "" : ": \(output)")
        case .deviceBroken(let name, let reason): "the guest broke its \(name) device: \(reason)"
        case .machineFailed(let reason): "the virtual machine failed: \(reason)"
        case .ended(let reason): reason
        }
    }
}

extension VMEnd {
    /// The values of `cause`.
    public static let causes = [
        "powered_off", "guest_crashed", "process_ended", "device_broken", "machine_failed", "ended_by_host",
    ]

    /// What kind of end it is, for metrics.
    public var cause: String {
        switch self {
        case .poweredOff: Self.causes[0]
        case .guestCrashed: Self.causes[1]
        case .processEnded: Self.causes[2]
        case .deviceBroken: Self.causes[3]
        case .machineFailed: Self.causes[4]
        case .ended: Self.causes[5]
        }
    }

    /// Whether it is the cause where it is the first sign: the host decided so, or the guest powered off.
    var isConclusive: Bool {
        switch self {
        case .ended, .poweredOff: true
        default: false
        }
    }

    /// The cause of an end, from its signs.
    ///
    /// What the host decided counts first, where it came first; then a process that was killed; then what the guest did;
    /// then what failed below the guest; a process that ended by itself is the last resort, as it mostly follows from one of
    /// the others.
    ///
    /// - Parameters:
    ///   - signs: what was seen, in its order.
    ///   - console: the guest's, complete.
    ///   - output: what a process printed last.
    static func cause(of signs: [VMEnd], console: Console, output: (_ process: String) -> String) -> VMEnd {
        if case .ended? = signs.first { return signs[0] }
        if let killed = signs.first(where: { if case .processEnded(_, .signaled, _) = $0 { true } else { false } }) {
            return killed
        }
        if signs.contains(.poweredOff) { return .poweredOff }
        let panic = console.panic
        for case .guestCrashed(let reason) in signs {
            if let panic { return .guestCrashed(panic) }
            return .guestCrashed(console.tail(1).isEmpty ? "\(reason) before it printed anything" : reason)
        }
        if let broken = signs.first(where: { if case .deviceBroken = $0 { true } else { false } }) { return broken }
        if let panic { return .guestCrashed(panic) }
        if let failed = signs.first(where: { if case .machineFailed = $0 { true } else { false } }) { return failed }
        for case .processEnded(let name, let how, _) in signs {
            return .processEnded(name: name, how: how, output: output(name))
        }
        return signs.first ?? .ended("the machine ended for no reason that was seen")
    }
}

extension Console {
    /// What the guest's kernel said of its panic, without the time.
    var panic: String? {
        guard let line = tail(Console.maximumLines).last(where: { $0.contains("Kernel panic") }) else { return nil }
        return line.firstRange(of: "Kernel panic").map { String(line[$0.lowerBound...]) } ?? line
    }
}
