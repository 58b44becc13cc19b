import Glibc

/// What goes over the queue of a memory device (virtio 1.2, 5.15.6). All numbers are little-endian.
enum MemoryProtocol {
    /// VIRTIO_MEM_REQ_…
    enum Operation: UInt16 {
        case plug, unplug, unplugAll, state
    }

    /// VIRTIO_MEM_RESP_…
    enum Answer: UInt16 {
        /// ACK: done.
        case acknowledged
        /// NACK: more than is requested.
        case refused
        /// BUSY: not now; the driver tries again later.
        case busy
        /// ERROR: a wrong request.
        case error
    }

    /// VIRTIO_MEM_STATE_…
    enum State: UInt16 {
        case plugged, unplugged, mixed
    }

    /// A request as the driver wrote it, read once: a type, and the blocks that it is about.
    struct Request {
        /// Bytes of it.
        static let size = 24
        /// Of another value: one that the device does not know.
        var type: UInt16
        /// The guest-physical address of the first block.
        var address: UInt64
        /// How many blocks.
        var count: UInt16

        /// - Parameter buffers: what the device may read of a chain.
        /// - Returns: nil where they are too short.
        init?(_ buffers: UnsafeBufferPointer<iovec>) {
            var bytes = [UInt8](repeating: 0, count: Self.size)
            guard Vectors.copyOut(buffers, to: &bytes, count: Self.size) == Self.size else { return nil }
            (type, address, count) = bytes.withUnsafeBytes {
                (
                    UInt16(littleEndian: $0.loadUnaligned(fromByteOffset: 0, as: UInt16.self)),
                    UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self)),
                    UInt16(littleEndian: $0.loadUnaligned(fromByteOffset: 16, as: UInt16.self))
                )
            }
        }
    }

    /// A response: the answer, and what a request of states asked for.
    struct Response {
        /// Bytes of it.
        static let size = 10
        var answer: Answer
        var state: State?

        init(_ answer: Answer, _ state: State? = nil) { (self.answer, self.state) = (answer, state) }

        var bytes: [UInt8] {
            [answer.rawValue, 0, 0, 0, state?.rawValue ?? 0].flatMap { number in
                withUnsafeBytes(of: number.littleEndian, Array.init)
            }
        }
    }
}
