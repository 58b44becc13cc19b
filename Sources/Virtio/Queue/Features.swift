/// The feature bits of the ring itself (virtio 1.2, 6).
public struct RingFeatures: OptionSet, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// VIRTIO_F_INDIRECT_DESC: a descriptor may point at a table of descriptors.
    public static let indirectDescriptors = RingFeatures(rawValue: 1 << 28)
    /// VIRTIO_F_EVENT_IDX: each side names the index at which it wants the next notification.
    public static let eventIndex = RingFeatures(rawValue: 1 << 29)
    /// VIRTIO_F_VERSION_1: virtio 1.0 or later; little-endian.
    public static let version1 = RingFeatures(rawValue: 1 << 32)

    /// All that `Virtqueue` implements.
    public static let all: RingFeatures = [.indirectDescriptors, .eventIndex, .version1]
}
