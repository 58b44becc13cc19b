/// What `martlet-vmm` is asked for: the parts of a machine, then its boot. The process replies in order, so a request need
/// not wait for the one before.
extension ControlClient {
    /// Makes the machine; everything else comes after it.
    ///
    /// - Parameters:
    ///   - kvm: /dev/kvm.
    ///   - memory: a memory file of `bytes` bytes.
    ///   - isPrivate: what the guest writes is not in the file, and no other process can map the guest's memory.
    public func makeMachine(
        kvm: Int32, memory: Int32, _ layout: MachineLayout
    ) throws(DeviceError) -> PendingReply {
        try post(.machine(kvm: kvm, memory: memory, layout: layout))
    }

    /// Maps a file as the guest's root image: a regular file of whole 2 MiB, open for reading.
    public func addRootImage(file: Int32) throws(DeviceError) -> PendingReply { try post(.addRootImage(file: file)) }

    /// Adds a console whose output goes to the socket `output`.
    public func addConsole(output: Int32, kind: ConsoleKind) throws(DeviceError) -> PendingReply {
        try post(.addConsole(output: output, kind: kind))
    }

    /// Adds a source of random numbers.
    public func addEntropy() throws(DeviceError) -> PendingReply { try post(.addEntropy) }

    /// Adds the memory balloon.
    ///
    /// - Parameter reportsFreePages: the guest may report free memory, which goes back to the host.
    public func addBalloon(reportsFreePages: Bool) throws(DeviceError) -> PendingReply {
        try post(.addBalloon(reportsFreePages: reportsFreePages))
    }

    /// Has the guest give up so much of its memory, which takes it a while.
    public func setBalloon(bytes: UInt64) throws(DeviceError) { try post(.setBalloon(bytes: bytes)).wait() }

    /// Adds the device by which the guest gets the hotplug memory of the machine's layout.
    public func addMemory() throws(DeviceError) -> PendingReply { try post(.addMemory) }

    /// Has the guest use so much of the hotplug memory, which takes it a while.
    public func setMemory(bytes: UInt64) throws(DeviceError) { try post(.setMemory(bytes: bytes)).wait() }

    /// Gives the guest vCPUs, or asks it to let go of the last ones, which takes it a while.
    public func setVCPUs(_ count: UInt32) throws(DeviceError) { try post(.setVCPUs(count: count)).wait() }

    /// Adds the vsock device, through which `connect` reaches the guest.
    public func addVsock(guestCID: UInt64) throws(DeviceError) -> PendingReply {
        try post(.addVsock(guestCID: guestCID))
    }

    /// Adds the file device that a process at the other end of `vhostUser` serves.
    public func addFiles(vhostUser: Int32, tag: String) throws(DeviceError) -> PendingReply {
        try post(.addFiles(vhostUser: vhostUser, tag: tag))
    }

    /// Adds the file device that another process serves through a `FileRelay`, as `startRelayedFiles` asks it to.
    public func addRelayedFiles(_ relay: RelayDescriptors<Int32>, tag: String) throws(DeviceError) -> PendingReply {
        try post(.addRelayedFiles(relay: relay, tag: tag))
    }

    /// Adds a disk, to the running machine too: files or block devices, opened as `readOnly` says; `id` is its serial number, 20 bytes
    /// at most, `queues` how many it may have. The reply is `.disk`.
    public func addBlock(
        files: DiskFiles<Int32>, readOnly: Bool, id: String, queues: UInt8 = 1
    ) throws(DeviceError) -> PendingReply {
        try post(.addBlock(files: files, readOnly: readOnly, id: id, queues: queues))
    }

    /// Takes a disk away from the running machine and gives its slot back.
    public func removeBlock(id: String) throws(DeviceError) { try post(.removeBlock(id: id)).wait() }

    /// Boots the machine. The reply is `.booted`.
    public func boot(kernel: Int32, initramfs: Int32?, commandLine: String) throws(DeviceError) -> PendingReply {
        try post(.boot(kernel: kernel, initramfs: initramfs, commandLine: commandLine), timeout: .seconds(60))
    }

    /// Starts the machine in a state that `save` wrote. The reply is `.booted`.
    ///
    /// - Parameters:
    ///   - state: a file, from its beginning on.
    ///   - resetsConnections: the guest is told that its connections have ended, before the agent is reported as ready.
    public func restore(state: Int32, resetsConnections: Bool = false) throws(DeviceError) -> PendingReply {
        try post(.restore(state: state, resetsConnections: resetsConnections), timeout: .seconds(60))
    }

    /// Writes the paused machine's state and its memory to files.
    ///
    /// - Parameter memory: a file of the memory's size that has only holes.
    /// - Returns: how many bytes the state has.
    public func save(state: Int32, memory: Int32) throws(DeviceError) -> UInt64 {
        // A disk may be slow.
        let reply = try post(.save(state: state, memory: memory), timeout: .seconds(600))
        guard case .saved(let bytes) = try reply.wait() else {
            throw .failed("save: the process did not say how much it wrote")
        }
        return bytes
    }

    /// Stops the machine's vCPUs; returns when none runs any more.
    public func pause() throws(DeviceError) { try post(.pause).wait() }

    /// Lets the vCPUs of a paused machine go on.
    public func resume() throws(DeviceError) { try post(.resume).wait() }

    /// Adds a network interface to the running machine, or to one that is going to be restored.
    ///
    /// - Parameters:
    ///   - queues: a tap's, as `LinuxSystem.Tap` makes them.
    ///   - hardwareAddress: 6 bytes.
    public func addNetwork(queues: [Int32], hardwareAddress: [UInt8]) throws(DeviceError) -> PendingReply {
        try post(.addNetwork(queues: queues, hardwareAddress: hardwareAddress))
    }

    /// Takes a network interface away and gives its slot back, which the guest may delay.
    public func removeNetwork(hardwareAddress: [UInt8]) throws(DeviceError) {
        try post(.removeNetwork(hardwareAddress: hardwareAddress)).wait()
    }

    /// Sets a network interface's link up or down.
    public func setNetworkLink(hardwareAddress: [UInt8], isUp: Bool) throws(DeviceError) {
        try post(.setNetworkLink(hardwareAddress: hardwareAddress, isUp: isUp)).wait()
    }

    /// Presses the power button.
    public func pressPowerButton() throws(DeviceError) { try post(.pressPowerButton).wait() }
}
