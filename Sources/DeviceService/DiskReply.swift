public import VMMControl
public import Virtio

extension ControlReply {
    /// The reply to the request for a disk.
    public static func disk(_ backend: BlockBackend) -> ControlReply {
        let mode = backend.mode
        return .disk(
            DiskMode(usesRing: mode.usesRing, isDirect: mode.isDirect, queues: UInt8(clamping: mode.queues)))
    }
}
