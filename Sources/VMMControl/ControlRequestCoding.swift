/// The fields and descriptors of each request, as they are written and as they are read.
extension ControlRequest {
    func encode(to packet: inout PacketWriter<Descriptor>) {
        switch self {
        case .startVsock(let vhostUser, let guestCID):
            packet.add(descriptor: vhostUser)
            packet.add(guestCID)
        case .startFiles(let vhostUser, let tag, let memoryLimit, let allowsDevices):
            packet.add(descriptor: vhostUser)
            packet.add(tag)
            packet.add(memoryLimit)
            packet.add(allowsDevices)
        case .startRelayedFiles(let relay, let tag, let memoryLimit, let allowsDevices):
            add(relay, to: &packet)
            packet.add(tag)
            packet.add(memoryLimit)
            packet.add(allowsDevices)
        case .startBlock(let vhostUser, let files, let readOnly, let id, let queues):
            packet.add(descriptor: vhostUser)
            add(files, to: &packet)
            packet.add(readOnly)
            packet.add(id)
            packet.add(queues)
        case .addShare(let name, let tree, let readOnly):
            packet.add(descriptor: tree)
            packet.add(name)
            packet.add(readOnly)
        case .removeShare(let name): packet.add(name)
        case .saveFiles(let file), .restoreFiles(let file): packet.add(descriptor: file)
        case .connect(let port, let stream, let timeout):
            packet.add(descriptor: stream)
            packet.add(port)
            packet.add(timeout.clampedNanoseconds)
        case .machine(let kvm, let memory, let layout):
            packet.add(descriptor: kvm)
            packet.add(descriptor: memory)
            layout.encode(to: &packet)
        case .addRootImage(let file): packet.add(descriptor: file)
        case .addConsole(let output, let kind):
            packet.add(descriptor: output)
            packet.add(kind.rawValue)
        case .addBalloon(let reportsFreePages): packet.add(reportsFreePages)
        case .setBalloon(let bytes): packet.add(bytes)
        case .setMemory(let bytes): packet.add(bytes)
        case .setVCPUs(let count): packet.add(count)
        case .addVsock(let guestCID): packet.add(guestCID)
        case .addFiles(let vhostUser, let tag):
            packet.add(descriptor: vhostUser)
            packet.add(tag)
        case .addRelayedFiles(let relay, let tag):
            add(relay, to: &packet)
            packet.add(tag)
        case .addBlock(let files, let readOnly, let id, let queues):
            add(files, to: &packet)
            packet.add(readOnly)
            packet.add(id)
            packet.add(queues)
        case .removeBlock(let id): packet.add(id)
        case .boot(let kernel, let initramfs, let commandLine):
            packet.add(descriptor: kernel)
            packet.add(initramfs != nil)
            if let initramfs { packet.add(descriptor: initramfs) }
            packet.add(commandLine)
        case .restore(let state, let resetsConnections):
            packet.add(descriptor: state)
            packet.add(resetsConnections)
        case .save(let state, let memory):
            packet.add(descriptor: state)
            packet.add(descriptor: memory)
        case .addNetwork(let queues, let hardwareAddress):
            packet.add(UInt8(clamping: queues.count))
            for queue in queues { packet.add(descriptor: queue) }
            packet.add(bytes: hardwareAddress)
        case .removeNetwork(let hardwareAddress): packet.add(bytes: hardwareAddress)
        case .setNetworkLink(let hardwareAddress, let isUp):
            packet.add(bytes: hardwareAddress)
            packet.add(isUp)
        case .statistics, .addEntropy, .addMemory, .pressPowerButton, .pause, .resume: break
        }
    }

    private func add(_ relay: RelayDescriptors<Descriptor>, to packet: inout PacketWriter<Descriptor>) {
        for descriptor in [relay.area, relay.request, relay.reply] { packet.add(descriptor: descriptor) }
    }

    private func add(_ files: DiskFiles<Descriptor>, to packet: inout PacketWriter<Descriptor>) {
        packet.add(UInt16(clamping: files.files.count))
        for (file, bytes) in zip(files.files, files.bytes) {
            packet.add(descriptor: file)
            packet.add(bytes)
        }
    }

    private static func diskFiles(
        from packet: inout PacketReader<Descriptor>
    ) throws(FieldError) -> DiskFiles<Descriptor> {
        let count: UInt16 = try packet.number("files")
        guard 1...DiskFiles<Descriptor>.maximumCount ~= Int(count) else { throw FieldError("\(count) files") }
        var (files, bytes): ([Descriptor], [UInt64]) = ([], [])
        for index in 0..<count {
            files.append(try packet.descriptor("file \(index)"))
            bytes.append(try packet.number("bytes"))
        }
        return DiskFiles(files: files, bytes: bytes)
    }

    private static func relay(
        from packet: inout PacketReader<Descriptor>
    ) throws(FieldError) -> RelayDescriptors<Descriptor> {
        RelayDescriptors(
            area: try packet.descriptor("area"), request: try packet.descriptor("request"),
            reply: try packet.descriptor("reply"))
    }

    /// Reads a request; nothing may be left over.
    init(_ kind: ControlRequestKind, from packet: inout PacketReader<Descriptor>) throws(FieldError) {
        self = try Self.decode(kind, from: &packet)
        try packet.finish()
    }

    private static func decode(
        _ kind: ControlRequestKind, from packet: inout PacketReader<Descriptor>
    ) throws(FieldError) -> Self {
        switch kind {
        case .startVsock:
            .startVsock(vhostUser: try packet.descriptor("vhostUser"), guestCID: try packet.number("guestCID"))
        case .startFiles:
            .startFiles(
                vhostUser: try packet.descriptor("vhostUser"),
                tag: try packet.text("tag"), memoryLimit: try packet.number("memoryLimit"),
                allowsDevices: try packet.flag("allowsDevices"))
        case .startRelayedFiles:
            .startRelayedFiles(
                relay: try relay(from: &packet), tag: try packet.text("tag"),
                memoryLimit: try packet.number("memoryLimit"), allowsDevices: try packet.flag("allowsDevices"))
        case .startBlock:
            .startBlock(
                vhostUser: try packet.descriptor("vhostUser"), files: try diskFiles(from: &packet),
                readOnly: try packet.flag("readOnly"), id: try packet.text("id"), queues: try packet.number("queues"))
        case .addShare: try addShare(from: &packet)
        case .removeShare: .removeShare(name: try packet.text("name"))
        case .saveFiles: .saveFiles(file: try packet.descriptor("file"))
        case .restoreFiles: .restoreFiles(file: try packet.descriptor("file"))
        case .connect: try connect(from: &packet)
        case .statistics: .statistics
        case .machine:
            .machine(
                kvm: try packet.descriptor("kvm"), memory: try packet.descriptor("memory"),
                layout: try MachineLayout(from: &packet))
        case .addRootImage: .addRootImage(file: try packet.descriptor("file"))
        case .addConsole: try addConsole(from: &packet)
        case .addEntropy: .addEntropy
        case .addBalloon: .addBalloon(reportsFreePages: try packet.flag("reportsFreePages"))
        case .setBalloon: .setBalloon(bytes: try packet.number("bytes"))
        case .addMemory: .addMemory
        case .setMemory: .setMemory(bytes: try packet.number("bytes"))
        case .setVCPUs: .setVCPUs(count: try packet.number("count"))
        case .addVsock: .addVsock(guestCID: try packet.number("guestCID"))
        case .addFiles: .addFiles(vhostUser: try packet.descriptor("vhostUser"), tag: try packet.text("tag"))
        case .addRelayedFiles: .addRelayedFiles(relay: try relay(from: &packet), tag: try packet.text("tag"))
        case .addBlock:
            .addBlock(
                files: try diskFiles(from: &packet), readOnly: try packet.flag("readOnly"), id: try packet.text("id"),
                queues: try packet.number("queues"))
        case .removeBlock: .removeBlock(id: try packet.text("id"))
        case .boot: try boot(from: &packet)
        case .restore:
            .restore(state: try packet.descriptor("state"), resetsConnections: try packet.flag("resetsConnections"))
        case .save: .save(state: try packet.descriptor("state"), memory: try packet.descriptor("memory"))
        case .pressPowerButton: .pressPowerButton
        case .pause: .pause
        case .resume: .resume
        case .addNetwork: try addNetwork(from: &packet)
        case .removeNetwork: .removeNetwork(hardwareAddress: try packet.hardwareAddress("hardwareAddress"))
        case .setNetworkLink:
            .setNetworkLink(
                hardwareAddress: try packet.hardwareAddress("hardwareAddress"), isUp: try packet.flag("isUp"))
        }
    }

    private static func addShare(from packet: inout PacketReader<Descriptor>) throws(FieldError) -> Self {
        let tree = try packet.descriptor("tree")
        return .addShare(name: try packet.text("name"), tree: tree, readOnly: try packet.flag("readOnly"))
    }

    private static func connect(from packet: inout PacketReader<Descriptor>) throws(FieldError) -> Self {
        let stream = try packet.descriptor("stream")
        let port: UInt32 = try packet.number("port")
        let timeout: UInt64 = try packet.number("timeout")
        return .connect(port: port, stream: stream, timeout: .nanoseconds(Int64(clamping: timeout)))
    }

    private static func addConsole(from packet: inout PacketReader<Descriptor>) throws(FieldError) -> Self {
        let output = try packet.descriptor("output")
        let number: UInt8 = try packet.number("kind")
        guard let kind = ConsoleKind(rawValue: number) else { throw FieldError("kind \(number) is unknown") }
        return .addConsole(output: output, kind: kind)
    }

    private static func boot(from packet: inout PacketReader<Descriptor>) throws(FieldError) -> Self {
        let kernel = try packet.descriptor("kernel")
        let initramfs = try packet.flag("initramfs") ? try packet.descriptor("initramfs") : nil
        return .boot(kernel: kernel, initramfs: initramfs, commandLine: try packet.text("commandLine"))
    }

    private static func addNetwork(from packet: inout PacketReader<Descriptor>) throws(FieldError) -> Self {
        let count: UInt8 = try packet.number("queues")
        guard count > 0 else { throw FieldError("no queues") }
        var queues: [Descriptor] = []
        for index in 0..<count { queues.append(try packet.descriptor("queue \(index)")) }
        return .addNetwork(queues: queues, hardwareAddress: try packet.hardwareAddress("hardwareAddress"))
    }
}

extension Duration {
    /// Whole nanoseconds: 0 where it is negative, the largest number where it is too long.
    package var clampedNanoseconds: UInt64 {
        guard self > .zero else { return 0 }
        let (seconds, attoseconds) = components
        let (product, overflow) = UInt64(clamping: seconds).multipliedReportingOverflow(by: 1_000_000_000)
        if overflow { return .max }
        let (sum, isTooLarge) = product.addingReportingOverflow(UInt64(clamping: attoseconds / 1_000_000_000))
        return isTooLarge ? .max : sum
    }
}
