import AgentContract
import CLinux
import Glibc
import LinuxSystem

/// Reads what the agent asks for.
enum TargetRequests {
    /// Requests that are taken at once, and in each second after that. Beyond it the agent waits, since nobody reads its stream.
    private static let burst = 100
    private static let pace = 500.0

    /// Hands over each message until the stream ends, or has what is no message; blocks.
    static func read(_ stream: SharedDescriptor, _ take: (TargetMessage) -> Void) {
        var pace = Pace(burst: burst, perSecond: pace)
        while let message = next(stream) {
            take(message)
            let wait = pace.take()
            if wait > .zero { usleep(useconds_t(wait / .microseconds(1))) }
        }
        shutdown(stream.raw, Int32(SHUT_RDWR))
    }

    private static func next(_ stream: SharedDescriptor) -> TargetMessage? {
        var bytes = [UInt8](repeating: 0, count: TargetMessage.encodedSize)
        while true {
            let count = recv(stream.raw, &bytes, bytes.count, Int32(MSG_WAITALL))
            if count < 0, errno == EINTR { continue }
            return count == bytes.count ? TargetMessage(bytes) : nil
        }
    }
}
