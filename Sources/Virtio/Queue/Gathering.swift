import Glibc
import Synchronization

/// One of several chains that form one buffer.
struct GatheredChain {
    var head: UInt16
    /// The number of its vectors.
    var vectors: UInt16
    /// Bytes that the device may write.
    var count: UInt32
}

/// Several chains as one buffer, for frames that may be longer than a chain (virtio 1.2, 5.1.6.4, mergeable buffers).
///
/// A queue is used either with these functions or with `next`, never with both.
extension Virtqueue {
    /// Gathering stops at this number of vectors, whatever their length.
    private static let vectorLimit = 512

    /// Takes chains until they have room for `room` bytes, but at least one chain and at most as many as the ring holds. Chains
    /// that were gathered before count.
    ///
    /// - Parameters:
    ///   - room: bytes.
    ///   - minimum: the smallest size that a chain may have, bytes.
    /// - Returns: false when the driver must add chains first.
    func gather(_ room: Int, minimum: UInt32) throws(QueueError) -> Bool {
        if let broken { throw broken }
        guard let available else { throw .stopped }
        var sum = 0
        for chain in gathered { sum += Int(chain.count) }
        while gathered.isEmpty || sum < room {
            if gathered.count == Int(size) || vectorCount >= Self.vectorLimit { return true }
            let ahead = atomic16(available, 2).pointee.load(ordering: .acquiring) &- nextAvailable
            if ahead == 0 { return false }
            do throws(QueueError) {
                guard Int(ahead) + gathered.count <= Int(size) else {
                    throw .availableIndexAhead(by: ahead, size: size)
                }
                sum += Int(try gatherOne(available, minimum))
            } catch {
                broken = error
                throw error
            }
        }
        return true
    }

    private func gatherOne(_ available: UnsafeMutableRawPointer, _ minimum: UInt32) throws(QueueError) -> UInt32 {
        let slot = Int(nextAvailable & (size &- 1))
        let head = atomic16(available, 4 + 2 * slot).pointee.load(ordering: .relaxed)
        guard head < size else { throw .headBeyondTable(head) }
        let first = vectorCount
        inWritablePart = false
        readableBytes = 0
        writableBytes = 0
        try walk(head)
        guard readableBytes == 0, writableBytes >= minimum else { throw .receiveBuffer }
        nextAvailable &+= 1
        gathered.append(GatheredChain(head: head, vectors: UInt16(vectorCount - first), count: writableBytes))
        return writableBytes
    }

    /// The buffers of all gathered chains, in order.
    var gatheredBuffer: UnsafeBufferPointer<iovec> { UnsafeBufferPointer(start: vectors, count: vectorCount) }

    /// The number of gathered chains that `written` bytes fill, at least 1.
    func chains(filledBy written: Int) -> Int {
        var left = written
        var count = 0
        for chain in gathered {
            count += 1
            left -= Int(chain.count)
            if left <= 0 { break }
        }
        return count
    }

    /// Completes the first `count` gathered chains, with `written` bytes in them. All become visible at once, because the driver
    /// expects the others as soon as it sees the first. The remaining chains stay gathered.
    func completeGathered(_ count: Int, written: Int) {
        guard let used, count > 0, count <= gathered.count else { return }
        var left = written
        var parts = 0
        for index in 0..<count {
            let chain = gathered[index]
            let element = used + 4 + 8 * Int(nextUsed & (size &- 1))
            let bytes = min(left, Int(chain.count))
            element.storeBytes(of: UInt32(chain.head), as: UInt32.self)
            (element + 4).storeBytes(of: UInt32(bytes), as: UInt32.self)
            counters.chain(read: 0, written: UInt32(bytes))
            nextUsed &+= 1
            completedSinceInterrupt &+= 1
            left -= bytes
            parts += Int(chain.vectors)
        }
        atomic16(used, 2).pointee.store(nextUsed, ordering: .releasing)
        gathered.removeFirst(count)
        vectorCount -= parts
        memmove(vectors, vectors + parts, vectorCount * MemoryLayout<iovec>.stride)
    }
}
