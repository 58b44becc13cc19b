import Glibc
import LinuxSystem

/// From the host to a process: its stdin, or its terminal.
struct InputRelay: Sendable {
    let stream: StreamTable.Slot
    /// The write end of a pipe, of which the relay is the only owner while it runs, or a terminal's master.
    let sink: SharedDescriptor
    /// Signalled when no more input comes: the process ended, or the host asked.
    let stop: SharedDescriptor
    let finished: @Sendable () -> Void

    func start(_ name: String) throws(SystemError) {
        // Parameters that end with the thread's body: the pipe must close when the relay ends.
        try startThread(name, stackSize: 128 << 10) { [self] in
            if let connection = stream.wait() ?? nil { pump(from: connection) }
            finished()
        }
    }

    private func pump(from connection: SharedDescriptor) {
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Relay.bufferSize, alignment: 16)
        defer { buffer.deallocate() }
        var stopping = false
        var items = [pollfd](repeating: pollfd(), count: 3)
        while true {
            items[0] = pollfd(fd: connection.raw, events: Relay.readable, revents: 0)
            items[1] = pollfd(fd: sink.raw, events: 0, revents: 0)
            items[2] = pollfd(fd: stopping ? -1 : stop.raw, events: Relay.readable, revents: 0)
            // When it is to stop, only what is already here is passed on.
            let count = poll(&items, 3, stopping ? 0 : -1)
            if count < 0 { continue }
            // The reader is gone.
            if items[1].revents & (Relay.broken | Relay.hungUp) != 0 { return }
            if items[0].revents != 0 {
                let length = read(connection.raw, buffer.baseAddress, buffer.count)
                if length < 0, Glibc.errno == EINTR || Glibc.errno == EAGAIN { continue }
                if length <= 0 { return }
                if !Relay.writeAll(UnsafeRawBufferPointer(rebasing: buffer[..<length]), to: sink.raw) { return }
            } else if stopping {
                return
            } else if items[2].revents != 0 {
                stopping = true
            }
        }
    }
}
