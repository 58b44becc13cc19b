import FuzzSupport

private let target = ChosenTarget([
    "rings": { try RingsTarget() },
    "fuse": { try FuseTarget() },
    "vsock": { try VsockTarget() },
    "snapshot": { try SnapshotTarget() },
    "file-state": { try FileStateTarget() },
    "registers": { try RegistersTarget() },
    "vhost-user": { try VhostUserTarget() },
    "control": { try ControlTarget() },
    "kernel": { try KernelTarget() },
    "netlink": { NetlinkTarget() },
    "archive": { try ArchiveTarget() },
])

/// What libFuzzer calls for each execution.
@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt { target.run(start, count) }
