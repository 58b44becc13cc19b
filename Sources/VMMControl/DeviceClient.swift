/// What `martlet-device` is asked for.
extension ControlClient {
    /// Makes the process serve a vsock device to the machine at the other end of `vhostUser`.
    public func startVsock(vhostUser: Int32, guestCID: UInt64) throws(DeviceError) -> PendingReply {
        try post(.startVsock(vhostUser: vhostUser, guestCID: guestCID))
    }

    /// Makes the process serve a file device called `tag` to the machine at the other end of `vhostUser`.
    /// - Parameters:
    ///   - memoryLimit: most memory that the guest may make it use, bytes.
    ///   - allowsDevices: whether the guest may make device nodes.
    public func startFiles(
        vhostUser: Int32, tag: String, memoryLimit: UInt64, allowsDevices: Bool = false
    ) throws(DeviceError) -> PendingReply {
        try post(
            .startFiles(
                vhostUser: vhostUser, tag: tag, memoryLimit: memoryLimit, allowsDevices: allowsDevices))
    }

    /// Makes the process serve a file device called `tag` through a `FileRelay`, as `startFiles` does otherwise.
    public func startRelayedFiles(
        _ relay: RelayDescriptors<Int32>, tag: String, memoryLimit: UInt64, allowsDevices: Bool = false
    ) throws(DeviceError) -> PendingReply {
        try post(
            .startRelayedFiles(relay: relay, tag: tag, memoryLimit: memoryLimit, allowsDevices: allowsDevices))
    }

    /// Makes the process serve a disk to the machine at the other end of `vhostUser`.
    /// - Parameters:
    ///   - files: raw files or block devices, open for reading and, unless the disk is read-only, writing.
    ///   - id: what the guest calls the disk's serial number; 20 bytes of it.
    ///   - queues: how many the disk may have; the reply `.disk` says how many it has.
    public func startBlock(
        vhostUser: Int32, files: DiskFiles<Int32>, readOnly: Bool, id: String, queues: UInt8 = 1
    ) throws(DeviceError) -> PendingReply {
        try post(.startBlock(vhostUser: vhostUser, files: files, readOnly: readOnly, id: id, queues: queues))
    }

    /// Makes the file device serve a directory (a detached mount, or an O_PATH descriptor) or a file.
    ///
    /// - Parameter name: its path in the device, `FILESYSTEM/ENTRY`; the same FILESYSTEM for all of one file system.
    public func addShare(name: String, directory: Int32, readOnly: Bool) throws(DeviceError) {
        try post(.addShare(name: name, tree: directory, readOnly: readOnly)).wait()
    }

    /// Takes a directory or file out of the file device.
    public func removeShare(name: String) throws(DeviceError) { try post(.removeShare(name: name)).wait() }

    /// Writes what the guest knows of the file device to a file, from its beginning on. To be called while the machine is paused.
    ///
    /// - Returns: how many bytes it has.
    /// - Throws: `.failed` with the path of a file that is open but has been deleted.
    public func saveFiles(to file: Int32) throws(DeviceError) -> UInt64 {
        guard case .saved(let bytes) = try post(.saveFiles(file: file), timeout: .seconds(60)).wait() else {
            throw .failed("saveFiles: the process did not say how much it wrote")
        }
        return bytes
    }

    /// Makes the file device know what another process wrote: after the same shares were added under the same names, and before
    /// the guest's first request.
    ///
    /// - Parameter file: a file, from its beginning on.
    /// - Throws: `.failed` with the path of a file that was open and is not there any more.
    public func restoreFiles(from file: Int32) throws(DeviceError) {
        try post(.restoreFiles(file: file), timeout: .seconds(60)).wait()
    }

    /// Connects `stream`, one end of a stream socket pair, to a vsock port of the guest. The caller closes its copy.
    /// - Throws: `.refused`, `.notReady`: try again when the guest had time; `.timedOut` past `deadline`.
    public func connect(port: UInt32, stream: Int32, deadline: Duration) throws(DeviceError) {
        let deadline = max(deadline, .zero)
        try post(.connect(port: port, stream: stream, timeout: deadline), timeout: deadline + .seconds(2)).wait()
    }
}
