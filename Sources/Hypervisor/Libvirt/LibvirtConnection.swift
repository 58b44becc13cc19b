#if Libvirt
    import CLibvirt
    import Glibc
    import LinuxSystem

    /// A connection to a libvirtd, and the domain there that is the machine's. libvirt counts references to both, and any thread may
    /// use them.
    final class LibvirtConnection: @unchecked Sendable {
        let raw: OpaquePointer
        /// What is called until `close`.
        private var callbacks: (lifecycle: Int32, monitor: Int32) = (-1, -1)
        private(set) var domain: OpaquePointer?

        /// Events come on one thread for all connections. Once it is there, it stays.
        private static let events: Result<Void, any Error> = Result {
            virSetErrorFunc(nil) { _, _ in }
            guard virInitialize() == 0, virEventRegisterDefaultImpl() == 0 else {
                throw LibvirtConnection.failure("start")
            }
            try startThread("libvirt events") { while virEventRunDefaultImpl() == 0 {} }
        }

        /// - Throws: `HypervisorError` with libvirt's words.
        init(uri: String) throws {
            try Self.events.get()
            guard let raw = virConnectOpen(uri) else { throw Self.failure("connect to \(uri)") }
            self.raw = raw
            // A libvirtd that stands still is noticed after half a minute.
            virConnectSetKeepAlive(raw, 5, 5)
        }

        deinit {
            if let domain { virDomainFree(domain) }
            virConnectClose(raw)
        }

        /// What libvirt said last on this thread.
        static func failure(_ action: String) -> HypervisorError {
            let reason = virGetLastErrorMessage().map { printable(String(cString: $0)) } ?? "it said nothing"
            return HypervisorError("libvirt: \(action): \(reason)")
        }

        var isAlive: Bool { virConnectIsAlive(raw) == 1 }

        /// The `+UID:+GID` that QEMU runs as; nil: this libvirtd changes no users.
        ///
        /// Source: https://libvirt.org/formatcaps.html (`secmodel`, `baselabel`).
        func qemuUser() throws -> String? {
            guard let text = virConnectGetCapabilities(raw) else { throw Self.failure("capabilities") }
            defer { free(text) }
            let parts = String(cString: text).split(separator: "<model>dac</model>", maxSplits: 1)
            guard parts.count == 2, let model = parts[1].firstRange(of: "</secmodel>") else { return nil }
            let labels = parts[1][..<model.lowerBound].split(separator: "<baselabel ")
            return labels.dropFirst().first.flatMap { label in
                label.split(separator: ">").dropFirst().first?.split(separator: "<").first.map(String.init)
            }
        }

        /// Makes a domain whose vCPUs stand still.
        ///
        /// - Returns: its UUID.
        func create(_ xml: String) throws -> String {
            guard let made = virDomainCreateXML(raw, xml, VIR_DOMAIN_START_PAUSED.rawValue) else {
                throw Self.failure("create a domain")
            }
            domain = made
            var uuid = [CChar](repeating: 0, count: Int(VIR_UUID_STRING_BUFLEN))
            guard virDomainGetUUIDString(made, &uuid) == 0 else { throw Self.failure("a domain's UUID") }
            return String(decoding: uuid.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }

        /// Finds a domain.
        ///
        /// - Returns: false: there is none.
        func find(uuid: String) throws -> Bool {
            domain = virDomainLookupByUUIDString(raw, uuid)
            if domain != nil { return true }
            guard virGetLastError()?.pointee.code == Int32(VIR_ERR_NO_DOMAIN.rawValue) else {
                throw Self.failure("find a domain")
            }
            return false
        }

        /// Has libvirt tell `target` of the domain's events and of the connection's end, until `close`.
        func listen(_ target: LibvirtDomain) throws {
            guard let domain else { return }
            func retained() -> UnsafeMutableRawPointer { Unmanaged.passRetained(target).toOpaque() }
            let release: virFreeCallback = { Unmanaged<LibvirtDomain>.fromOpaque($0!).release() }
            callbacks.lifecycle = martlet_libvirt_on_lifecycle(
                raw, domain,
                { _, _, event, detail, target in
                    Unmanaged<LibvirtDomain>.fromOpaque(target!).takeUnretainedValue().takeLifecycle(event, detail)
                    return 0
                }, retained(), release)
            callbacks.monitor = virConnectDomainQemuMonitorEventRegister(
                raw, domain, nil,
                { _, _, name, _, _, details, target in
                    guard let name else { return }
                    Unmanaged<LibvirtDomain>.fromOpaque(target!).takeUnretainedValue().takeMonitor(
                        String(cString: name), details.map { String(cString: $0) } ?? "")
                }, retained(), release, 0)
            let onClose = virConnectRegisterCloseCallback(raw, Self.onClose, retained(), release)
            guard callbacks.lifecycle >= 0, callbacks.monitor >= 0, onClose == 0 else {
                throw Self.failure("listen to events")
            }
        }

        /// Ends the domain that was made, after a failure.
        func destroyDomain() { if let domain { virDomainDestroy(domain) } }

        private static let onClose: virConnectCloseFunc = { _, _, target in
            Unmanaged<LibvirtDomain>.fromOpaque(target!).takeUnretainedValue().takeClose()
        }

        /// Ends the calls; the connection ends with its last owner.
        func close() {
            if callbacks.lifecycle >= 0 { virConnectDomainEventDeregisterAny(raw, callbacks.lifecycle) }
            if callbacks.monitor >= 0 { virConnectDomainQemuMonitorEventDeregister(raw, callbacks.monitor) }
            virConnectUnregisterCloseCallback(raw, Self.onClose)
            callbacks = (-1, -1)
        }
    }
#endif
