import Synchronization

/// A page of registers and an interrupt, where a virtio device can be.
///
/// While it is empty its page says "no device": a driver that probes the slot leaves it without an error (virtio 1.2, 4.2.2).
final class MMIOSlot: BusDevice, @unchecked Sendable {
    let index: Int
    /// Guest-physical.
    let address: UInt64
    let gsi: UInt32
    let page: RegisterPage
    private let device = Mutex<VirtioTransport?>(nil)

    init(index: Int, address: UInt64, gsi: UInt32, page: RegisterPage) {
        self.index = index
        self.address = address
        self.gsi = gsi
        self.page = page
        super.init()
        describeEmpty()
    }

    /// The device in the slot; nil: it is free.
    var transport: VirtioTransport? { device.withLock { $0 } }

    /// Gives the slot to a device, whose registers are in the page already.
    func insert(_ transport: VirtioTransport) { device.withLock { $0 = transport } }

    /// Has the bus reach the device no more. Accesses that have reached it may still be under way.
    func remove() { device.withLock { $0 = nil } }

    /// Makes the page that of a slot without a device.
    func describeEmpty() {
        page.clear()
        page[VirtioRegister.magic] = VirtioTransport.magic
        page[VirtioRegister.version] = VirtioTransport.version
    }

    override func read(_ offset: UInt64, _ data: UnsafeMutableRawBufferPointer) { page.read(offset, data) }

    override func write(_ offset: UInt64, _ data: UnsafeRawBufferPointer) { transport?.write(offset, data) }
}
