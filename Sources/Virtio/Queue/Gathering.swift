import Glibc
import Synchronization

/// One of several chains that are held together.
struct GatheredChain {
    var head: UInt16
    /// Parts of it in `vectors`.
    var vectors: UInt16
    /// Bytes that the device may write.
    var count: UInt32
}

/// Several chains as one buffer: for frames, which may be longer than a chain (virtio 1.2, 5.1.6.4, mergeable buffers).
///
/// A queue is used in this way or by `next`, never both.
extension Virtqueue {
    /// So many vectors are enough, whatever they hold.
    private static let enoughVectors = 512

    /// Takes chains until they have room for `room` bytes, one at least, or are all that the ring can hold. What was gathered
    /// before counts and stays.
    ///
    /// - Parameter least: the fewest bytes that a chain may have.
    /// - Returns: false when the driver has to give more first.
    func gather(_ room: Int, least: UInt32) throws(QueueError) -> Bool {
        if let broken { throw broken }
        guard let available else { throw .stopped }
        var sum = 0
        for chain in gathered { sum += Int(chain.count) }
        while gathered.isEmpty || sum < room {
            if gathered.count == Int(size) || vectorCount >= Self.enoughVectors { return true }
            let ahead = word(available, 2).pointee.load(ordering: .acquiring) &- nextAvailable
            if ahead == 0 { return false }
            do throws(QueueError) {
                guard Int(ahead) + gathered.count <= Int(size) else {
                    throw .availableIndexAhead(by: ahead, size: size)
                }
                sum += Int(try gatherOne(available, least))
            } catch {
                broken = error
                throw error
            }
        }
        return true
    }

    private func gatherOne(_ available: UnsafeMutableRawPointer, _ least: UInt32) throws(QueueError) -> UInt32 {
        let slot = Int(nextAvailable & (size &- 1))
        let head = word(available, 4 + 2 * slot).pointee.load(ordering: .relaxed)
        guard head < size else { throw .headBeyondTable(head) }
        let first = vectorCount
        inWritablePart = false
        readableBytes = 0
        writableBytes = 0
        try walk(head)
        guard readableBytes == 0, writableBytes >= least else { throw .receiveBuffer }
        nextAvailable &+= 1
        gathered.append(GatheredChain(head: head, vectors: UInt16(vectorCount - first), count: writableBytes))
        return writableBytes
    }

    /// All the bytes of the gathered chains, in their order.
    var gatheredBuffer: UnsafeBufferPointer<iovec> { UnsafeBufferPointer(start: vectors, count: vectorCount) }

    /// How many of the gathered chains `written` bytes fill, one at least.
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

    /// Gives the first `count` gathered chains back, which have `written` bytes in them; all at once, as the driver looks
    /// for the others as soon as it sees the first. The rest stays gathered.
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
            nextUsed &+= 1
            unannounced &+= 1
            left -= bytes
            parts += Int(chain.vectors)
        }
        word(used, 2).pointee.store(nextUsed, ordering: .releasing)
        gathered.removeFirst(count)
        vectorCount -= parts
        memmove(vectors, vectors + parts, vectorCount * MemoryLayout<iovec>.stride)
    }
}
