/// What `martlet-vmm` is asked for: the parts of a machine, then its boot. The process answers in order, so a request need
/// not wait for the one before.
extension ControlClient {
    /// Makes the machine; everything else comes after it.
    ///
    /// - Parameters:
    ///   - kvm: /dev/kvm.
    ///   - memory: a memory file of `bytes` bytes.
    public func makeMachine(
        kvm: Int32, memory: Int32, bytes: UInt64, processors: UInt32
    ) throws(DeviceError) -> Answer {
        var message = ControlMessage(.machine)
        message.number = bytes
        message.port = processors
        return try post(message, [kvm, memory])
    }

    /// Gives the kernel's command line, in as many messages as it takes.
    public func appendCommandLine(_ line: String) throws(DeviceError) -> [Answer] {
        var answers: [Answer] = []
        var left = Array(line.utf8)[...]
        while !left.isEmpty {
            var message = ControlMessage(.commandLine)
            message.text = String(decoding: left.prefix(ControlMessage.maximumText), as: UTF8.self)
            left = left.dropFirst(ControlMessage.maximumText)
            answers.append(try post(message))
        }
        return answers
    }

    /// Adds a console whose output goes to the socket `output`; `isSerial`: a serial port rather than a virtio console.
    public func addConsole(output: Int32, isSerial: Bool) throws(DeviceError) -> Answer {
        var message = ControlMessage(.addConsole)
        message.flags = isSerial ? ControlMessage.serial : 0
        return try post(message, [output])
    }

    /// Adds a source of random numbers.
    public func addEntropy() throws(DeviceError) -> Answer { try post(ControlMessage(.addEntropy)) }

    /// Adds the vsock device, through which `connect` reaches the guest.
    public func addVsock(guestCID: UInt64) throws(DeviceError) -> Answer {
        var message = ControlMessage(.addVsock)
        message.number = guestCID
        return try post(message)
    }

    /// Adds the file device that a process at the other end of `vhostUser` serves.
    public func addFiles(vhostUser: Int32, tag: String) throws(DeviceError) -> Answer {
        var message = ControlMessage(.addFiles)
        message.text = tag
        return try post(message, [vhostUser])
    }

    /// Adds a disk: a file or block device, opened as `readOnly` says; `id` is its serial number, 20 bytes at most.
    public func addBlock(file: Int32, readOnly: Bool, id: String) throws(DeviceError) -> Answer {
        var message = ControlMessage(.addBlock)
        message.flags = readOnly ? ControlMessage.readOnly : 0
        message.text = id
        return try post(message, [file])
    }

    /// Boots the machine. The answer's number is the monotonic time just before its first instruction.
    public func boot(kernel: Int32, initramfs: Int32?) throws(DeviceError) -> Answer {
        try post(ControlMessage(.boot), [kernel] + (initramfs.map { [$0] } ?? []), patience: .seconds(60))
    }

    /// Adds a network interface to the running machine; the guest finds it when it looks at its spare places.
    ///
    /// - Parameters:
    ///   - queues: a tap's, as `LinuxSystem.Tap` makes them.
    ///   - hardwareAddress: 6 bytes.
    public func addNetwork(queues: [Int32], hardwareAddress: [UInt8]) throws(DeviceError) -> Answer {
        var message = ControlMessage(.addNetwork)
        message.number = hardwareAddress.reversed().reduce(0) { $0 << 8 | UInt64($1) }
        return try post(message, queues)
    }

    /// Presses the power button.
    public func pressPowerButton() throws(DeviceError) { try post(ControlMessage(.powerButton)).wait() }
}
