import CLinux
import Glibc
import LinuxSystem

/// The signals that this process gets, as a stream.
///
/// A handler writes each into a pipe (sigaction(2)): signalfd(2) would need them blocked in threads that run already.
final class SignalQueue: Sendable {
    let stream: AsyncStream<Int32>

    init(_ signals: [Int32]) throws {
        let (stream, continuation) = AsyncStream.makeStream(of: Int32.self)
        self.stream = stream
        let (read, write) = try SharedDescriptor.pipe()
        _ = martlet_fcntl_int(write.raw, F_SETFL, Int(O_NONBLOCK))
        martlet_signal_pipe(write.raw)
        for signal in signals { try check("sigaction", signalName(signal), martlet_forward_signal(signal)) }
        try startThread("signals") {
            _ = write  // open as long as the process lives
            var signal: UInt8 = 0
            while true {
                let count = Glibc.read(read.raw, &signal, 1)
                if count == 1 { continuation.yield(Int32(signal)) } else if count == 0 || errno != EINTR { return }
            }
        }
    }

    /// Passes the signals on to the process on the host that stands for one of the guest, which passes them on.
    ///
    /// - Parameter resized: called where the person's terminal has another size.
    func pass(to child: ChildProcess, resized: () async -> Void) async {
        for await signal in stream {
            if signal == SIGWINCH { await resized() } else { child.signal(signal) }
        }
    }
}
