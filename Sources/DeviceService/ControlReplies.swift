import Glibc
public import LinuxSystem
public import VMMControl

/// A line on standard error, which the pod's server logs under the process's name.
public func logError(_ message: String) {
    let line = Array("\(message)\n".utf8)
    _ = write(2, line, line.count)
}

/// Why a process does not do as asked.
public struct RequestError: Error, CustomStringConvertible {
    public var description: String
    public init(_ description: String) { self.description = description }

    /// For a request that this process does not serve.
    public static func notServed(_ request: ControlRequest<SharedDescriptor>) -> RequestError {
        RequestError("this process does not serve the request \(request.name)")
    }
}

extension ControlSocket {
    /// Receives one request, has it handled, and sends the reply.
    ///
    /// - Parameter handle: answers nil when the reply is sent later, by whoever has the sequence number. What it throws is
    ///   sent as `failed`.
    /// - Returns: false when the host has closed the socket, or speaks another protocol.
    public func serve(
        _ handle: (_ sequence: UInt64, ControlRequest<SharedDescriptor>) throws -> ControlReply?
    ) -> Bool {
        do throws(ControlError) {
            guard let (sequence, request) = try receiveRequest() else { return false }
            do {
                if let reply = try handle(sequence, request) { self.reply(sequence, reply) }
            } catch {
                reply(sequence, .failed(reason: "\(error)"))
            }
            return true
        } catch .refused(let sequence, let reason) {
            reply(sequence, .failed(reason: reason))
            return true
        } catch {
            logError("\(error)")
            // In this program's version, from which the host learns of the difference.
            if case .version(_, let sequence) = error { reply(sequence, .failed(reason: "\(error)")) }
            return false
        }
    }

    /// Replies to a request; what can't be sent goes to standard error.
    public func reply(_ sequence: UInt64, _ reply: ControlReply) {
        do { try send(reply, sequence: sequence) } catch { logError("\(error)") }
    }

    /// Sends an event to the host; what can't be sent goes to standard error.
    public func report(_ event: ControlEvent) {
        do { try send(event) } catch { logError("\(error)") }
    }

    /// Reports that a device has stopped for good.
    public func reportBroken(_ reason: String) {
        logError(reason)
        report(.broken(reason: reason))
    }
}
