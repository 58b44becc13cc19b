import Glibc
import LinuxSystem
public import VMMControl

/// A line on standard error, which the pod's server logs under the process's name.
public func logError(_ message: String) {
    let line = Array("\(message)\n".utf8)
    _ = write(2, line, line.count)
}

extension ControlSocket {
    /// Answers a request.
    public func reply(_ sequence: UInt64, _ status: ControlMessage.Status = .done, _ text: String = "") {
        var message = ControlMessage(.reply, sequence: sequence)
        message.status = status
        message.text = text
        deliver(message)
    }

    /// Refuses a request that the process doesn't know, or that came with the wrong descriptors.
    public func refuse(_ message: ControlMessage, _ descriptors: Int) {
        reply(message.sequence, .failed, "this process takes no \(message.kind) with \(descriptors) descriptors")
    }

    /// Tells the host that a device has stopped for good.
    public func reportBroken(_ reason: String) {
        logError(reason)
        var message = ControlMessage(.broken)
        message.text = reason
        deliver(message)
    }

    /// Sends a message to the host; what can't be sent is said on standard error.
    public func deliver(_ message: ControlMessage) {
        do { try send(message) } catch { logError("\(error)") }
    }
}
