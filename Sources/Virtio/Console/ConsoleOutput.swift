import Glibc
import LinuxSystem

/// A console's way out: never waits for its reader, and never grows.
///
/// What the descriptor doesn't take at once waits in a buffer. When that is full the *oldest* bytes go, and a line says
/// how many: what a console is read for after the fact is why a kernel gave up, and that it says last.
final class ConsoleOutput {
    static let capacity = 64 << 10

    private let descriptor: SharedDescriptor
    private let loop: EventLoop
    private var waiting = LastBytes(capacity: capacity)
    /// What is left of the line about lost bytes.
    private var note: ArraySlice<UInt8> = []
    private var isWatched = false
    private var isClosed = false

    init(_ descriptor: SharedDescriptor, loop: EventLoop) throws(SystemError) {
        self.descriptor = descriptor
        self.loop = loop
        try descriptor.setNonBlocking(true)
    }

    deinit { watch(false) }

    /// Takes `count` bytes of `source`. They are with the reader after `flush`, if it has room for them.
    func write(_ source: UnsafeBufferPointer<iovec>, count: Int) {
        if isClosed { return }
        if count > waiting.room { flush() }
        waiting.append(source, count: count)
    }

    /// Gives the reader what it takes now. The rest follows when the loop says that it can take more.
    func flush() {
        if !isWatched { push() }
    }

    private func push() {
        while !isClosed {
            if note.isEmpty, waiting.lost == 0, waiting.count == 0 { return watch(false) }
            guard note.isEmpty && waiting.lost == 0 ? pushBytes() : pushNote() else { return watch(!isClosed) }
        }
    }

    /// Writes the oldest bytes; false when the reader takes none now.
    private func pushBytes() -> Bool {
        let written = push(waiting.oldest)
        waiting.remove(written)
        return written > 0
    }

    /// Writes the line about lost bytes. Their number is settled when its first byte is out.
    private func pushNote() -> Bool {
        let isBegun = !note.isEmpty
        if !isBegun { note = Array("\n[\(waiting.lost) bytes of console output lost: slow reader]\n".utf8)[...] }
        let written = note.withUnsafeBytes { push($0) }
        if written > 0, !isBegun { waiting.forgetLost() }
        note = written > 0 || isBegun ? note.dropFirst(written) : []
        return written > 0
    }

    /// Answers how many bytes the reader took.
    private func push(_ bytes: UnsafeRawBufferPointer) -> Int {
        while true {
            let written = Glibc.write(descriptor.raw, bytes.baseAddress, bytes.count)
            if written >= 0 { return written }
            if errno == EAGAIN { return 0 }
            if errno != EINTR {
                // Nobody reads any more: from here on the guest speaks to nobody, and is not held up by that.
                isClosed = true
                return 0
            }
        }
    }

    private func watch(_ on: Bool) {
        guard on != isWatched else { return }
        if on {
            // Without the loop, the guest's next words push the rest out.
            isWatched = (try? loop.add(descriptor.raw, .writable) { [unowned self] _ in push() }) != nil
        } else {
            loop.remove(descriptor.raw)
            isWatched = false
        }
    }

    /// Waits until the reader has all, at most so many milliseconds: for the end of the machine, whose last words
    /// count.
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
