import CLinux
import Glibc
import LinuxSystem

@testable import Virtio

/// What this process has of the machine's memory.
func residentBytes() -> Int {
    let file = open("/proc/self/statm", O_RDONLY)
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: 256)
    let count = read(file, &bytes, bytes.count)
    let fields = String(decoding: bytes.prefix(max(0, count)), as: UTF8.self).split(separator: " ")
    return fields.count > 1 ? (Int(fields[1]) ?? 0) * Int(getpagesize()) : 0
}

/// An eventfd as both sides of a queue have one.
func eventDescriptor() throws -> SharedDescriptor {
    SharedDescriptor(OwnedDescriptor(owning: try check("eventfd", "", eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK)))))
}

/// Waits for a wake-up, at most so long, and takes it.
func consume(_ event: SharedDescriptor, milliseconds: Int32 = 2000) -> Bool {
    var item = pollfd(fd: event.raw, events: Int16(POLLIN), revents: 0)
    var value: UInt64 = 0
    return poll(&item, 1, milliseconds) == 1 && read(event.raw, &value, 8) == 8
}

/// One queue of a back end with its driver: rings and eventfds, as a transport hands them in.
final class FakeQueue {
    let index: Int
    let ring: FakeRing
    let kick: SharedDescriptor
    let call: SharedDescriptor
    let error: SharedDescriptor
    let setup: QueueSetup

    init(
        _ index: Int, _ memory: FakeMemory, size: UInt32 = 64, features: UInt64 = 0
    ) throws {
        self.index = index
        ring = FakeRing(memory, at: FakeMemory.base + 0x8000 * UInt64(index), size: size)
        (kick, call, error) = (try eventDescriptor(), try eventDescriptor(), try eventDescriptor())
        let lines = RingLines()
        lines.setCall(call)
        lines.setError(error)
        setup = QueueSetup(
            geometry: ring.geometry, memory: memory.guest, features: [.all, RingFeatures(rawValue: features)],
            position: 0,
            isFresh: true, kick: kick, lines: lines)
    }

    func signal() {
        var one: UInt64 = 1
        _ = write(kick.raw, &one, 8)
    }
}

/// A value as it lies in memory: little-endian, as every structure of a queue is.
func wire<T: BitwiseCopyable>(_ value: T) -> [UInt8] {
    withUnsafeBytes(of: value) { Array($0) }
}
