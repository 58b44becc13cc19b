import Glibc

/// A first-in-first-out queue that grows as needed and never shrinks.
struct FIFOQueue<Element> {
    private var slots: [Element?]
    private var head = 0
    private(set) var count = 0

    /// - Parameter capacity: the number of elements that it holds before it first grows.
    init(capacity: Int) { slots = Array(repeating: nil, count: max(1, capacity)) }

    var isEmpty: Bool { count == 0 }

    mutating func append(_ element: Element) {
        if count == slots.count {
            var larger = [Element?](repeating: nil, count: 2 * slots.count)
            for index in 0..<count { larger[index] = slots[(head + index) % slots.count] }
            slots = larger
            head = 0
        }
        slots[(head + count) % slots.count] = element
        count += 1
    }

    mutating func popFirst() -> Element? {
        guard count > 0 else { return nil }
        let element = slots[head]
        slots[head] = nil
        head = (head + 1) % slots.count
        count -= 1
        return element
    }

    mutating func removeAll() {
        while popFirst() != nil {}
    }
}

/// Bytes that wait for a host socket that is full. The buffer is bounded, and uses no memory while it is empty.
struct StreamBuffer: ~Copyable {
    let capacity: Int
    private(set) var count = 0
    private var head = 0
    private var storage: UnsafeMutableRawPointer?

    init(capacity: Int) { self.capacity = capacity }

    deinit { free(storage) }

    var isEmpty: Bool { count == 0 }

    /// Adds the `added` bytes of `vectors` after the first `skip` bytes.
    ///
    /// - Returns: false when they don't fit or there is no memory; then nothing is added.
    mutating func append(_ vectors: UnsafeBufferPointer<iovec>, skip: Int, count added: Int) -> Bool {
        guard added <= capacity - count else { return false }
        if storage == nil { storage = malloc(capacity) }
        guard let storage else { return false }
        let tail = (head + count) % capacity
        let first = min(added, capacity - tail)
        var copied = Vectors.copyOut(vectors, skip: skip, to: storage + tail, count: first)
        if first < added {
            copied += Vectors.copyOut(vectors, skip: skip + first, to: storage, count: added - first)
        }
        count += copied
        return copied == added
    }

    /// Calls `body` with the buffer's bytes, in at most two pieces, and removes as many bytes as `body` returns.
    mutating func drain(_ body: (UnsafeMutablePointer<iovec>, Int) -> Int) {
        guard let storage, count > 0 else { return }
        let first = min(count, capacity - head)
        var parts = (iovec(iov_base: storage + head, iov_len: first), iovec(iov_base: storage, iov_len: count - first))
        let taken = withUnsafeMutablePointer(to: &parts) {
            $0.withMemoryRebound(to: iovec.self, capacity: 2) { body($0, count > first ? 2 : 1) }
        }
        let step = max(0, min(taken, count))
        head = (head + step) % capacity
        count -= step
        if count == 0 {
            free(storage)
            self.storage = nil
            head = 0
        }
    }
}
