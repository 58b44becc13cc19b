import Synchronization

/// The page that a driver reads a device's registers in.
///
/// The guest reads it as memory, without leaving the guest; whoever changes a register writes it here. Words are stored
/// atomically, as the guest may read at any time.
final class RegisterPage: @unchecked Sendable {
    static let size = Int(MemoryMap.virtioPage)
    private let base: UnsafeMutableRawPointer

    /// - Parameter base: `size` bytes, zeroed, that outlive this value.
    init(_ base: UnsafeMutableRawPointer) { self.base = base }

    private func word(_ offset: UInt64) -> UnsafeMutablePointer<Atomic<UInt32>> {
        (base + Int(offset)).assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    subscript(offset: UInt64) -> UInt32 {
        get { word(offset).pointee.load(ordering: .acquiring) }
        set { word(offset).pointee.store(newValue, ordering: .releasing) }
    }

    func set(_ bits: UInt32, at offset: UInt64) {
        word(offset).pointee.bitwiseOr(bits, ordering: .acquiringAndReleasing)
    }

    func clear(_ bits: UInt32, at offset: UInt64) {
        word(offset).pointee.bitwiseAnd(~bits, ordering: .acquiringAndReleasing)
    }

    /// Bytes from `offset` on, as many as fit.
    func write(_ bytes: [UInt8], at offset: UInt64) {
        for (index, byte) in bytes.prefix(Self.size - Int(offset)).enumerated() {
            (base + Int(offset) + index).storeBytes(of: byte, as: UInt8.self)
        }
    }

    /// Fills `data` with what is at `offset`, as a guest would read it.
    func read(_ offset: UInt64, _ data: UnsafeMutableRawBufferPointer) {
        guard offset < UInt64(Self.size) else { return }
        let count = min(data.count, Self.size - Int(offset))
        data.copyMemory(from: UnsafeRawBufferPointer(start: base + Int(offset), count: count))
    }
}
