public import LinuxSystem
public import VMMControl
public import Virtio

extension BlockSource {
    /// What the host has handed in.
    public init(_ files: DiskFiles<SharedDescriptor>) {
        self.init(zip(files.files, files.bytes).map { ($0, $1) })
    }
}
