/// What QEMU reports by itself, as much of it as is used.
enum QMPEvent: Sendable, Equatable {
    /// Why the machine stops (QEMU qapi/run-state.json, ShutdownCause).
    enum ShutdownReason: String, Sendable {
        case guestShutdown = "guest-shutdown"
        case guestReset = "guest-reset"
        case guestPanic = "guest-panic"
        case hostError = "host-error"
        case hostQMPQuit = "host-qmp-quit"
        case hostQMPSystemReset = "host-qmp-system-reset"
        case hostSignal = "host-signal"
        case hostUI = "host-ui"
        case subsystemReset = "subsystem-reset"
        case snapshotLoad = "snapshot-load"
        case none
    }

    case shutdown(ShutdownReason)
    /// The guest has let go of a device, which is gone.
    case deviceDeleted(id: String)
    /// The guest has refused to let go of a device.
    case unplugRefused(id: String)

    /// - Parameters:
    ///   - name: as QEMU spells it.
    ///   - data: what the event says.
    init?(_ name: String, _ data: QMP.Details?) {
        switch name {
        case "SHUTDOWN":
            guard let reason = data?.reason.flatMap({ ShutdownReason(rawValue: $0) }) else { return nil }
            self = .shutdown(reason)
        // Without an identifier it is a part of the device.
        case "DEVICE_DELETED":
            guard let id = data?.device else { return nil }
            self = .deviceDeleted(id: id)
        case "DEVICE_UNPLUG_GUEST_ERROR":
            guard let id = data?.device else { return nil }
            self = .unplugRefused(id: id)
        default: return nil
        }
    }
}

/// Executes commands of QEMU's machine protocol: the protocol's own connection, or libvirt, which passes them on.
protocol QEMUMonitor: Sendable {
    /// Has QEMU execute a command, with a copy of `descriptor` where it takes one, and waits until it is done.
    ///
    /// - Parameter timeout: how long QEMU may take.
    /// - Throws: `HypervisorError` with QEMU's words; `SystemError` when it took too long.
    func perform(
        _ command: String, _ arguments: [String: QMP.Argument], descriptor: Int32?, timeout: Duration
    ) throws -> QMP.Answer
}

extension QEMUMonitor {
    /// As `perform`.
    @discardableResult
    func execute(
        _ command: String, _ arguments: [String: QMP.Argument] = [:], descriptor: Int32? = nil,
        timeout: Duration = QMP.timeout
    ) throws -> QMP.Answer {
        try perform(command, arguments, descriptor: descriptor, timeout: timeout)
    }
}
