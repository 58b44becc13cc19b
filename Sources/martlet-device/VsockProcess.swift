import LinuxSystem
import VMMControl
import VhostUser
import Virtio

/// Serves a vsock device: control socket, machine, guest and streams on one thread.
final class VsockProcess {
    private let control: ControlSocket
    private let loop: EventLoop
    private var backend: VsockBackend?
    private var session: Session?
    private var ended = false

    init(_ control: ControlSocket) throws {
        self.control = control
        loop = try EventLoop()
    }

    /// Returns when the control socket is closed.
    func run() throws {
        try loop.add(control.socket.raw, .readable) { [unowned self] _ in receive() }
        while !ended {
            try loop.runOnce(timeoutMilliseconds: backend?.timeout ?? -1)
            backend?.afterRound()
        }
    }

    private func receive() {
        do {
            guard let (message, descriptors) = try control.receive() else { return ended = true }
            handle(message, descriptors)
        } catch {
            complain("\(error)")
            ended = true
        }
    }

    private func handle(_ message: ControlMessage, _ descriptors: [SharedDescriptor]) {
        switch (message.kind, descriptors.count) {
        case (.startVsock, 1): start(message, descriptors[0])
        case (.connect, 1):
            guard let backend else { return reply(message.sequence, .failed, "the device is not started") }
            let deadline = monotonicNanoseconds().addingReportingOverflow(message.number)
            backend.device.connect(
                port: message.port, socket: descriptors[0], token: message.sequence,
                deadline: deadline.overflow ? .max : deadline.partialValue)
        default:
            reply(message.sequence, .failed, "a vsock device takes no \(message.kind) with \(descriptors.count) descriptors")
        }
    }

    private func start(_ message: ControlMessage, _ socket: SharedDescriptor) {
        guard session == nil else { return reply(message.sequence, .failed, "the device is started already") }
        let backend = VsockBackend(
            guestCID: message.number, loop: loop,
            finished: { [unowned self] in finished($0, $1) }, onBroken: { [unowned self] in broken($0) })
        let session = Session(socket: socket, device: backend) { [unowned self] in broken($0) }
        do {
            try loop.add(session.descriptor, .readable) { [unowned self] _ in serve() }
        } catch {
            return reply(message.sequence, .failed, "\(error)")
        }
        self.backend = backend
        self.session = session
        reply(message.sequence, .done)
    }

    private func serve() {
        guard let session else { return }
        do {
            if try session.receive() { return }
        } catch {
            broken("\(error)")
            session.close()
        }
        // The machine is gone, or is not to be spoken with any more. The host learns of its end from the process.
        loop.remove(session.descriptor)
    }

    private func finished(_ token: UInt64, _ result: VsockConnectResult) {
        switch result {
        case .connected: reply(token, .done)
        case .refused: reply(token, .refused)
        case .notReady: reply(token, .notReady)
        case .timedOut: reply(token, .timedOut)
        case .tooMany: reply(token, .failed, "too many connections to the guest")
        }
    }

    private func reply(_ sequence: UInt64, _ status: ControlMessage.Status, _ text: String = "") {
        var message = ControlMessage(.reply, sequence: sequence)
        message.status = status
        message.text = text
        send(message)
    }

    private func broken(_ reason: String) {
        complain(reason)
        var message = ControlMessage(.broken)
        message.text = reason
        send(message)
    }

    private func send(_ message: ControlMessage) {
        do { try control.send(message) } catch { complain("\(error)") }
    }
}
