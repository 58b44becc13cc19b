import CLinux
import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import Machine
@testable import Virtio

/// Whether /dev/kvm runs tiny guests here. Those also run where an ordinary Linux guest does not.
enum TinyKVM {
    /// Why not; nil when it does. Printed once.
    static let obstacle: String? = {
        do {
            _ = try KVM(device: SharedDescriptor(OwnedDescriptor.open("/dev/kvm", O_RDWR)))
            return nil
        } catch {
            print("tests with tiny guests are skipped: \(error)")
            return "\(error)"
        }
    }()
    static var isReady: Bool { obstacle == nil }
}

/// Remembers what a guest did to a range of a bus, and answers what it is told to.
final class Recorder: BusDevice, @unchecked Sendable {
    struct Access: Equatable, Sendable {
        var offset: UInt64
        var bytes: [UInt8]
        init(_ offset: UInt64, _ bytes: [UInt8]) {
            self.offset = offset
            self.bytes = bytes
        }
    }

    private let log = Mutex<[Access]>([])
    private let answer: [UInt8]
    private let onWrite: @Sendable (Access) -> Void

    init(answer: [UInt8] = [], onWrite: @escaping @Sendable (Access) -> Void = { _ in }) {
        self.answer = answer
        self.onWrite = onWrite
    }

    var writes: [Access] { log.withLock { $0 } }

    override func read(_ offset: UInt64, _ data: UnsafeMutableRawBufferPointer) {
        for (index, byte) in answer.prefix(data.count).enumerated() { data[index] = byte }
    }

    override func write(_ offset: UInt64, _ data: UnsafeRawBufferPointer) {
        let access = Access(offset, Array(data))
        log.withLock { $0.append(access) }
        onWrite(access)
    }
}

/// One vCPU, 64 MiB and a few instructions, run in this process.
final class TinyMachine {
    let vm: VM
    let vcpu: VCPU
    var buses = Buses()
    /// Gets what the guest writes to port 0x602, after which it stops.
    let last: Recorder

    init(_ code: [UInt8]) throws {
        let map = try MemoryMap(size: 64 << 20)
        let file = SharedDescriptor(try OwnedDescriptor.memory("tiny guest", size: Int64(map.size)))
        let kvm = try KVM(device: SharedDescriptor(OwnedDescriptor.open("/dev/kvm", O_RDWR)))
        vm = try VM(kvm, map: map, memoryFile: file)
        let vcpu = try VCPU(vm, index: 0)
        self.vcpu = vcpu
        last = Recorder { _ in vcpu.request(.stop) }
        try buses.ports.add(last, at: 0x602..<0x606)
        try vm.memory.write(code, at: TinyGuest.address, "code")
        try vcpu.setCPUID(kvm.supportedCPUID())
        try vcpu.setLocalAPIC()
        try vcpu.set(.linux(entry: TinyGuest.address, vcpu.specialRegisters()), memory: vm.memory)
        try VCPUSignal.install()
    }

    /// Runs it to its end, for ten seconds at most.
    func run() throws -> VCPUEnd {
        let done = try Promise<VCPUEnd>()
        let (vcpu, buses) = (vcpu, buses)
        try startThread("tiny guest") { done.settle(vcpu.run(buses)) }
        if let end = done.wait(timeout: .seconds(10)) { return end }
        vcpu.request(.stop)
        Issue.record("the guest still ran after ten seconds")
        return try #require(done.wait(timeout: .seconds(5)))
    }
}
