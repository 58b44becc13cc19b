import Glibc
import LinuxSystem

/// The output of a console. It never waits for its reader, and its memory is bounded.
///
/// Output that the descriptor does not take at once waits in a buffer. When the buffer is full, the *oldest* bytes are dropped
/// and a line reports how many: a console is read to find out why a kernel failed, and the kernel prints that last.
final class ConsoleOutput {
    static let capacity = 64 << 10

    private let descriptor: SharedDescriptor
    private let loop: EventLoop
    private var backlog = OutputBacklog(capacity: capacity)
    /// The unwritten rest of the line about lost bytes.
    private var notice: ArraySlice<UInt8> = []
    private var isWatched = false
    private var isClosed = false

    init(_ descriptor: SharedDescriptor, loop: EventLoop) throws(SystemError) {
        self.descriptor = descriptor
        self.loop = loop
        try descriptor.setNonBlocking(true)
    }

    deinit { watch(false) }

    /// Adds `count` bytes of `source`. `flush` writes them.
    func write(_ source: UnsafeBufferPointer<iovec>, count: Int) {
        if isClosed { return }
        if count > backlog.room { flush() }
        backlog.append(source, count: count)
    }

    /// Writes as much as the descriptor takes now. The rest follows when the descriptor becomes writable.
    func flush() {
        if !isWatched { push() }
    }

    private func push() {
        while !isClosed {
            if notice.isEmpty, backlog.lost == 0, backlog.count == 0 { return watch(false) }
            guard notice.isEmpty && backlog.lost == 0 ? pushBytes() : pushNotice() else { return watch(!isClosed) }
        }
    }

    /// Writes the oldest bytes.
    ///
    /// - Returns: false when the descriptor takes none now.
    private func pushBytes() -> Bool {
        let written = push(backlog.oldest)
        backlog.remove(written)
        return written > 0
    }

    /// Writes the line about lost bytes. Their number is fixed once the first byte of the line is written.
    private func pushNotice() -> Bool {
        let wasBegun = !notice.isEmpty
        if !wasBegun { notice = Array("\n[\(backlog.lost) bytes of console output lost: slow reader]\n".utf8)[...] }
        let written = notice.withUnsafeBytes { push($0) }
        if written > 0, !wasBegun { backlog.resetLost() }
        notice = written > 0 || wasBegun ? notice.dropFirst(written) : []
        return written > 0
    }

    /// Writes `bytes` and returns how many the descriptor took.
    private func push(_ bytes: UnsafeRawBufferPointer) -> Int {
        while true {
            let written = Glibc.write(descriptor.raw, bytes.baseAddress, bytes.count)
            if written >= 0 { return written }
            if errno == EAGAIN { return 0 }
            if errno != EINTR {
                // The reader is gone. From now on output is discarded, so that the guest is not blocked.
                isClosed = true
                return 0
            }
        }
    }

    private func watch(_ on: Bool) {
        guard on != isWatched else { return }
        if on {
            // If the loop refuses the descriptor, the guest's next output writes the rest.
            isWatched = (try? loop.add(descriptor.raw, .writable) { [unowned self] _ in push() }) != nil
        } else {
            loop.remove(descriptor.raw)
            isWatched = false
        }
    }

    /// Waits until all output is written, at most `milliseconds`. Called when the machine ends, because the last lines of the
    /// console matter most.
    func finish(milliseconds: Int) {
        let end = monotonicNanoseconds() + UInt64(max(0, milliseconds)) * 1_000_000
        while true {
            push()
            let now = monotonicNanoseconds()
            guard isWatched, now < end else { return }
            var item = pollfd(fd: descriptor.raw, events: Int16(POLLOUT), revents: 0)
            poll(&item, 1, Int32(clamping: (end - now) / 1_000_000 + 1))
        }
    }
}
