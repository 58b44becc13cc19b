#if Libvirt
    import AgentContract
    import Glibc
    import LinuxSystem
    import Logging
    import VMMControl

    /// A VM that is a domain of libvirt, with device processes of Martlet's, as `QEMUMachine` has them.
    final class LibvirtMachine: PluggedMachine {
        let watch: MachineWatch
        let console: Console
        let vsock: DeviceProcess
        let files: DeviceProcess?
        let firstProcesses: [(name: String, pid: Int32)]
        private let domain: LibvirtDomain
        var monitor: any QEMUMonitor { domain }
        let parts: QEMUParts

        init(_ driver: LibvirtDriver, _ configuration: VMConfiguration) throws {
            let logger = driver.qemu.logger
            let log: @Sendable (String) -> Void = { logger.debug("\($0)") }
            let watch = try MachineWatch(readyEvent: .started, logger: logger)
            self.watch = watch
            let parts = QEMUParts(
                driver.qemu, configuration, watch, balloon: LibvirtDomainXML.balloonID, log: log)
            self.parts = parts
            let connection = try LibvirtConnection(uri: driver.uri)
            let user = try connection.qemuUser()
            let sockets = try LibvirtSockets(user: Self.userID(user) ?? Self.owner(ofDaemon: driver.uri))
            var devices = DeviceProcesses(watch, user: configuration.user, log: log)
            let cgroups: LibvirtCgroups
            do {
                vsock = try devices.start("martlet-device", "vsock", as: "vsock")
                files = configuration.hasFiles ? try devices.start("martlet-device", "files", as: "files") : nil
                let printed = try Promise<SharedDescriptor>()
                let channels =
                    try Self.channels(sockets, vsock.client, files?.client, configuration)
                    + [try LibvirtChannel("console", sockets) { printed.settle($0) }]
                let xml = LibvirtDomainXML(
                    vm: configuration, qemu: driver.qemu,
                    sockets: .init(
                        console: sockets.path("console"), vsock: sockets.path("vsock"), files: sockets.path("files")),
                    user: user)
                let (uuid, pid) = try Self.create(xml, connection, channels, console: printed)
                guard let source = printed.current else { throw HypervisorError("QEMU has no console") }
                console = try Console("guest console", source: source) { logger.debug("guest: \($0)") }
                domain = try LibvirtDomain(connection, uri: driver.uri, uuid: uuid, pid: pid, logger: logger) { event in
                    parts.slots.take(event)
                    if let sign = VMEnd(event) { watch.sign(sign) }
                }
                firstProcesses =
                    (pid > 0 ? [("libvirt qemu", pid)] : []) + devices.all.map { ($0.name, $0.child.pid) }
                logger.phase("machine spawned")
                // Before the guest runs: what it uses counts for its pod.
                cgroups = try LibvirtCgroups(
                    leaving: pid, LibvirtDomainXML.name(of: configuration), for: configuration.cgroups)
                try domain.resume()
            } catch {
                connection.destroyDomain()
                sockets.remove()
                throw devices.abandon(after: error)
            }
            watch.started()
            let (console, domain, all) = (console, domain, devices.all)
            watch.begin([domain] + all) { signs in
                console.waitForEnd(timeout: .seconds(1))
                defer {
                    domain.close()
                    sockets.remove()
                    cgroups.remove()
                }
                if case .ended? = signs.first { return signs[0] }
                return domain.wantedEnd() ?? .cause(of: signs, console: console) { all.outputTail(of: $0) }
            }
        }

        /// The UID of `+UID:+GID`.
        static func userID(_ label: String?) -> UInt32? {
            label.flatMap { $0.split(separator: ":").first }.flatMap { UInt32($0.drop { $0 == "+" }) }
        }

        /// Whom a libvirtd runs as that changes no users: the owner of the socket that its URI names.
        private static func owner(ofDaemon uri: String) -> UInt32 {
            let query = uri.split(separator: "?", maxSplits: 1).dropFirst().first ?? ""
            let socket = query.split(separator: "&").first { $0.hasPrefix("socket=") }?.dropFirst("socket=".count)
            var facts = Glibc.stat()
            guard let socket, stat(String(socket), &facts) == 0 else { return geteuid() }
            return facts.st_uid
        }

        /// The sockets of the device processes.
        private static func channels(
            _ sockets: LibvirtSockets, _ vsock: ControlClient, _ files: ControlClient?,
            _ configuration: VMConfiguration
        ) throws -> [LibvirtChannel] {
            var channels = [
                try LibvirtChannel("vsock", sockets) {
                    try vsock.startVsock(vhostUser: $0.raw, guestCID: configuration.guestCID).wait()
                }
            ]
            if let files {
                channels.append(
                    try LibvirtChannel("files", sockets) {
                        try files.startFiles(
                            vhostUser: $0.raw, tag: ShareDevice.tag, memoryLimit: configuration.filesMemoryLimit,
                            allowsDevices: configuration.allowsDeviceNodes
                        ).wait()
                    })
            }
            return channels
        }

        /// Has libvirt make the domain, which connects to the device processes.
        ///
        /// - Returns: the domain's UUID and QEMU's process.
        private static func create(
            _ xml: LibvirtDomainXML, _ connection: LibvirtConnection, _ channels: [LibvirtChannel],
            console: Promise<SharedDescriptor>
        ) throws -> (uuid: String, pid: Int32) {
            let made = Result { try connection.create(xml.text) }
            // QEMU does not wait until its connection is taken.
            if case .success = made { _ = console.wait(timeout: .seconds(5)) }
            // What a device process says comes before what QEMU makes of it.
            let peers = try channels.map { try $0.close() }
            return (try made.get(), peers.compactMap { $0 }.first ?? 0)
        }

        func pauseVCPUs() throws { try domain.suspend() }

        func resumeVCPUs() throws { try domain.resume() }
    }
#endif
