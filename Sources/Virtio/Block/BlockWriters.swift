import CLinux
import Glibc
import LinuxSystem
import Synchronization

/// Threads that write to a file, each one request at a time, for one queue of a disk.
///
/// They take small direct writes to files. An asynchronous one is completed by Linux on a thread of the kernel's, for which it has
/// to wait; a synchronous one (pwritev(2)) is completed where it waits.
final class BlockWriters: Sendable {
    /// The largest write for which the way of completion matters, bytes.
    static let largestWrite = 32 << 10
    /// For one disk.
    static let threads = 8

    /// A write. Its vectors stay until it is done.
    struct Job: @unchecked Sendable {
        var tag: Int
        var file: Int32
        var vectors: UnsafeBufferPointer<iovec>
        /// In the file, bytes.
        var offset: Int
    }

    private struct State {
        /// Those that wait, the first one last.
        var waiting: [Job] = []
        var done: [(tag: Int, result: Int)] = []
        var hasEnded = false
    }

    private let state = Mutex(State())
    private let threads: Int
    /// Counts the jobs that wait, and at the end the threads: each takes one with a read that blocks.
    private let jobs: SharedDescriptor
    private let finished: EventDescriptor
    private let isDone = Atomic(false)

    /// Starts the threads: a queue's own thread may not.
    init(threads: Int) throws(SystemError) {
        self.threads = threads
        finished = try EventDescriptor()
        jobs = SharedDescriptor(
            OwnedDescriptor(owning: try check("eventfd", "", eventfd(0, Int32(EFD_CLOEXEC | EFD_SEMAPHORE)))))
        for _ in 0..<threads { try startThread("disk writer", stackSize: 64 << 10) { [self] in work() } }
    }

    /// Readable when a write is done that `take` has not returned.
    var descriptor: Int32 { finished.descriptor.raw }
    /// Whether a write is done that `take` has not returned. Costs no system call.
    var hasCompletions: Bool { isDone.load(ordering: .acquiring) }

    /// Begins a write.
    func begin(_ job: Job) {
        state.withLock { $0.waiting.insert(job, at: 0) }
        jobs.signal()
    }

    /// The writes that are done: the bytes of each, or a negative errno.
    func take() -> [(tag: Int, result: Int)] {
        guard isDone.exchange(false, ordering: .acquiringAndReleasing) else { return [] }
        finished.drain()
        return state.withLock { state in
            defer { state.done.removeAll(keepingCapacity: true) }
            return state.done
        }
    }

    /// Ends the threads. None may have a write to do.
    func end() {
        state.withLock { $0.hasEnded = true }
        for _ in 0..<threads { jobs.signal() }
    }

    private func work() {
        while let job = next() {
            let count = pwritev(job.file, job.vectors.baseAddress, Int32(job.vectors.count), job.offset)
            let result = count < 0 ? -Int(errno) : count
            state.withLock { $0.done.append((job.tag, result)) }
            if !isDone.exchange(true, ordering: .acquiringAndReleasing) { finished.signal() }
        }
    }

    private func next() -> Job? {
        var one: UInt64 = 0
        while read(jobs.raw, &one, 8) != 8 {}
        return state.withLock { $0.hasEnded ? nil : $0.waiting.popLast() }
    }
}
