#if Libvirt
    import CLibvirt
    import CLinux
    import FoundationEssentials
    import Glibc
    import LinuxSystem
    import Logging
    import Synchronization

    /// A machine's domain: its commands, its events, and its end. A connection that is lost is made anew, as libvirtd leaves its
    /// QEMUs alone when it is restarted.
    final class LibvirtDomain: WatchedPart {
        /// Why the domain is no more, as libvirt says.
        enum Stop: Sendable, Equatable {
            /// QEMU ended as the guest or its monitor wanted.
            case shutdown
            /// Somebody had libvirt destroy it.
            case destroyed
            /// QEMU ended by itself, or was killed.
            case failed
            /// While there was no connection.
            case unseen
        }

        private let uri: String
        private let uuid: String
        private let logger: Logger
        private let onEvent: @Sendable (QMPEvent) -> Void
        private let connection: Mutex<LibvirtConnection>
        private let stop: Promise<Stop>
        /// QEMU, where this process can see it.
        private let process: SharedDescriptor?
        /// This end was wanted here.
        private let isKilled = Mutex(false)
        /// The guest can cause some of the events.
        private let logPace = Mutex(Pace(burst: 100, perSecond: 10))
        /// How long libvirtd may be away for a command.
        private static let patience = Duration.seconds(10)

        /// - Parameters:
        ///   - uuid: of the domain, which `connection` has made.
        ///   - pid: of QEMU; 0: not to be seen.
        ///   - onEvent: called on the thread for events: it must not execute commands.
        init(
            _ connection: LibvirtConnection, uri: String, uuid: String, pid: Int32, logger: Logger,
            onEvent: @Sendable @escaping (QMPEvent) -> Void
        ) throws {
            (self.uri, self.uuid, self.logger, self.onEvent) = (uri, uuid, logger, onEvent)
            self.connection = Mutex(connection)
            stop = try Promise()
            process =
                pid > 0
                ? SharedDescriptor(
                    OwnedDescriptor(owning: try check("pidfd_open", "\(pid)", martlet_pidfd_open(pid, 0)))) : nil
            try connection.listen(self)
        }

        // MARK: Events

        func takeLifecycle(_ event: Int32, _ detail: Int32) {
            logger.debug("libvirt: lifecycle event \(event), detail \(detail)")
            guard event == Int32(VIR_DOMAIN_EVENT_STOPPED.rawValue) else { return }
            switch UInt32(bitPattern: detail) {
            case VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN.rawValue: stop.settle(.shutdown)
            case VIR_DOMAIN_EVENT_STOPPED_DESTROYED.rawValue: stop.settle(.destroyed)
            default: stop.settle(.failed)
            }
        }

        func takeMonitor(_ name: String, _ details: String) {
            if logPace.withLock({ $0.admit() }) != nil { logger.debug("libvirt: \(name) \(printable(details))") }
            let data = try? JSONDecoder().decode(QMP.Details.self, from: Data(details.utf8))
            if let event = QMPEvent(name, data) { onEvent(event) }
        }

        /// The connection is lost: libvirtd has ended, or stands still.
        func takeClose() {
            if stop.current != nil { return }
            logger.warning("libvirt: the connection to \(uri) is lost")
            // Not on the thread for events, which the new connection needs.
            try? startThread("libvirt reconnect") { [self] in
                while stop.current == nil {
                    usleep(200_000)
                    if (try? reconnect()) != nil { return }
                }
            }
        }

        private func reconnect() throws {
            let new = try LibvirtConnection(uri: uri)
            guard try new.find(uuid: uuid) else {
                stop.settle(.unseen)
                return
            }
            try new.listen(self)
            let old = connection.withLock { connection in
                defer { connection = new }
                return connection
            }
            old.close()
            logger.info("libvirt: connected to \(uri) again")
        }

        // MARK: Commands

        /// Calls `body` with the domain, on a connection that is alive. Blocks as long as libvirtd does.
        private func with<R>(_ action: String, _ body: (OpaquePointer) throws -> R) throws -> R {
            let deadline = ContinuousClock.now + Self.patience
            while true {
                let current = connection.withLock { $0 }
                if stop.current != nil { throw HypervisorError("libvirt: \(action): the domain has ended") }
                if current.isAlive, let domain = current.domain { return try body(domain) }
                guard ContinuousClock.now < deadline else {
                    throw HypervisorError("libvirt: \(action): no connection to \(uri) within \(Self.patience)")
                }
                usleep(100_000)
            }
        }

        /// Lets the vCPUs run.
        func resume() throws {
            try with("resume") { if virDomainResume($0) != 0 { throw LibvirtConnection.failure("resume") } }
        }

        /// Stops the vCPUs.
        func suspend() throws {
            try with("suspend") { if virDomainSuspend($0) != 0 { throw LibvirtConnection.failure("suspend") } }
        }

        // MARK: The end

        func kill() {
            if hasEnded(within: .zero) || stop.current != nil { return }
            isKilled.withLock { $0 = true }
            let process = process
            try? startThread("libvirt destroy") { [self] in
                do { try with("destroy") { _ = virDomainDestroy($0) } } catch { logger.warning("\(error)") }
                if let process, !hasEnded(within: .seconds(1)) { _ = martlet_pidfd_send_signal(process.raw, SIGKILL) }
            }
        }

        /// Whether QEMU has ended; waits for it.
        private func hasEnded(within limit: Duration?) -> Bool {
            guard let process else { return stop.wait(timeout: limit) != nil }
            var item = pollfd(fd: process.raw, events: Int16(POLLIN), revents: 0)
            return poll(&item, 1, limit.map { Int32($0 / .milliseconds(1)) } ?? -1) > 0
        }

        /// Why the domain is no more, once QEMU is not; nil: libvirt has not said.
        func stopReason() -> Stop? {
            guard let stop = stop.wait(timeout: .seconds(3)) else { return nil }
            return stop
        }

        /// The end that this host's administrator wanted; nil: it was another one.
        func wantedEnd() -> VMEnd? {
            guard stopReason() == .destroyed, !isKilled.withLock({ $0 }) else { return nil }
            return .ended("libvirt has destroyed the domain, as somebody asked it to (virsh destroy)")
        }

        func ended() async -> VMEnd {
            let end = try? await onThread("libvirt end") { [self] () -> VMEnd in
                _ = hasEnded(within: nil)
                if let end = wantedEnd() { return end }
                switch stop.current {
                case .shutdown, .destroyed: return .machineFailed("libvirt has shut the domain down")
                case .failed: return .machineFailed("libvirt's QEMU has ended by itself, or was killed")
                case .unseen, nil: return .machineFailed("libvirt's QEMU has ended, and libvirtd did not say why")
                }
            }
            return end ?? .machineFailed("libvirt's QEMU has ended")
        }

        /// Lets go of libvirt; the domain has ended.
        func close() { connection.withLock { $0 }.close() }
    }

    /// The monitor of libvirt's QEMU, by pass-through.
    extension LibvirtDomain: QEMUMonitor {
        private struct Command: Encodable {
            var execute: String
            var arguments: [String: QMP.Argument]
        }

        private struct Reply: Decodable {
            var error: QMP.Details?
            var `return`: QMP.Answer?
        }

        func perform(
            _ command: String, _ arguments: [String: QMP.Argument], descriptor: Int32?, timeout: Duration
        ) throws -> QMP.Answer {
            let text = String(
                decoding: try JSONEncoder().encode(Command(execute: command, arguments: arguments)), as: UTF8.self)
            let file = try descriptor.map { try SharedDescriptor(duplicate($0)) }
            let done = try Promise<Result<String, any Error>>()
            // libvirt knows no limit of time.
            try startThread("libvirt command") { [self] in
                done.settle(Result { try with(command) { try Self.send(text, file, to: $0, command) } })
            }
            guard let reply = done.wait(timeout: timeout) else {
                throw SystemError("libvirt", command, errno: .timedOut)
            }
            let answer = try JSONDecoder().decode(Reply.self, from: Data(reply.get().utf8))
            if let error = answer.error {
                throw HypervisorError("qemu: \(command): \(printable(error.desc ?? "failed"))")
            }
            return answer.return ?? QMP.Answer()
        }

        private func duplicate(_ descriptor: Int32) throws -> OwnedDescriptor {
            OwnedDescriptor(
                owning: try check("dup", "\(descriptor)", martlet_fcntl_int(descriptor, F_DUPFD_CLOEXEC, 0)))
        }

        private static func send(
            _ text: String, _ file: SharedDescriptor?, to domain: OpaquePointer, _ command: String
        ) throws -> String {
            var reply: UnsafeMutablePointer<CChar>?
            var files = file.map { [$0.raw] } ?? []
            let code = withExtendedLifetime(file) {
                virDomainQemuMonitorCommandWithFiles(
                    domain, text, UInt32(files.count), &files, nil, nil, &reply, 0)
            }
            guard code == 0, let reply else { throw LibvirtConnection.failure(command) }
            defer { free(reply) }
            return String(cString: reply)
        }
    }
#endif
