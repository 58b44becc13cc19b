import Synchronization

/// The page that a driver reads a device's registers in.
///
/// The guest reads it as memory, without an exit; what changes a register writes it here. Registers are stored atomically,
/// since the guest may read at any time. All are little-endian, as this CPU is.
final class RegisterPage: @unchecked Sendable {
    static let size = Int(MemoryMap.virtioPage)
    private let base: UnsafeMutableRawPointer

    /// - Parameter base: `size` bytes, zeroed, that outlive this value.
    init(_ base: UnsafeMutableRawPointer) { self.base = base }

    private func register(_ offset: UInt64) -> UnsafeMutablePointer<Atomic<UInt32>> {
        (base + Int(offset)).assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    subscript(offset: UInt64) -> UInt32 {
        get { register(offset).pointee.load(ordering: .acquiring) }
        set { register(offset).pointee.store(newValue, ordering: .releasing) }
    }

    func set(_ bits: UInt32, at offset: UInt64) {
        register(offset).pointee.bitwiseOr(bits, ordering: .acquiringAndReleasing)
    }

    func clear(_ bits: UInt32, at offset: UInt64) {
        register(offset).pointee.bitwiseAnd(~bits, ordering: .acquiringAndReleasing)
    }

    /// Writes bytes from `offset` on, a multiple of 4, as many as fit. Each aligned register of 4 bytes changes at once.
    func write(_ bytes: [UInt8], at offset: UInt64) {
        let bytes = bytes.prefix(Self.size - Int(offset))
        for start in stride(from: 0, to: bytes.count, by: 4) {
            let position = offset + UInt64(start)
            var value = self[position]
            withUnsafeMutableBytes(of: &value) { $0.copyBytes(from: bytes[start..<min(start + 4, bytes.count)]) }
            self[position] = value
        }
    }

    /// Makes every register 0.
    func clear() {
        for offset in stride(from: 0, to: UInt64(Self.size), by: 4) { self[offset] = 0 }
    }

    /// Fills `data` with what is at `offset`, as a guest would read it.
    func read(_ offset: UInt64, _ data: UnsafeMutableRawBufferPointer) {
        guard offset < UInt64(Self.size) else { return }
        let count = min(data.count, Self.size - Int(offset))
        data.copyMemory(from: UnsafeRawBufferPointer(start: base + Int(offset), count: count))
    }
}
