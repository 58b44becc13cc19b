import Synchronization

/// A place for a virtio device that is not there yet.
struct HotplugSlot {
    let place: ACPIConfiguration.VirtioDevice
    let page: RegisterPage
    let slot = HotplugTransport()

    /// Until it is filled the page says "no device": a driver that looks there goes away in silence (virtio 1.2, 4.2.2).
    init(place: ACPIConfiguration.VirtioDevice, page: RegisterPage) {
        self.place = place
        self.page = page
        page[VirtioRegister.magic] = VirtioTransport.magic
        page[VirtioRegister.version] = VirtioTransport.version
    }
}

/// The bus's end of a spare place.
final class HotplugTransport: BusDevice, @unchecked Sendable {
    private let transport = Mutex<VirtioTransport?>(nil)

    func fill(_ transport: VirtioTransport) { self.transport.withLock { $0 = transport } }

    override func read(_ offset: UInt64, _ data: UnsafeMutableRawBufferPointer) {
        transport.withLock { $0 }?.read(offset, data)
    }

    override func write(_ offset: UInt64, _ data: UnsafeRawBufferPointer) {
        transport.withLock { $0 }?.write(offset, data)
    }
}
