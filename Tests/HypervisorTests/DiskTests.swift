import Glibc
import LinuxSystem
import Testing

@testable import Hypervisor

/// Disks as the host knows them.
@Suite struct DiskTests {
    @Test func partsHavePlaces() {
        let disk = Disk(parts: [("a", 5000), ("b", 4096), ("c", 1)].map { .init(path: $0, bytes: $1) }, readOnly: true)
        #expect(disk.places.map(\.offset) == [0, 8192, 12288] && disk.places.map(\.bytes) == [5000, 4096, 1])
    }

    @Test func aSerialNumberTellsDisksApart() {
        let disk = Disk(path: "/a", readOnly: true)
        #expect(disk.id == Disk(path: "/a", readOnly: true).id && disk.id.utf8.count == 20)
        for other in [
            Disk(path: "/b", readOnly: true), Disk(path: "/a", readOnly: false),
            Disk(parts: [.init(path: "/a", bytes: 1)], readOnly: true),
        ] {
            #expect(disk.id != other.id)
        }
    }

    /// One writer, or any number of readers.
    @Test func filesAreClaimed() throws {
        let path = "/tmp/martlet-claim-\(getpid())"
        _ = try OwnedDescriptor.open(path, O_CREAT | O_RDWR, mode: 0o600)
        defer { unlink(path) }
        let (writing, reading) = (Disk(path: path, readOnly: false), Disk(path: path, readOnly: true))
        var open: [OpenDisk] = [try reading.open(), try reading.open()]
        #expect(throws: HypervisorError.self) { try writing.open() }
        open = []
        open.append(try writing.open())
        #expect(throws: HypervisorError.self) { try writing.open() }
        let error = #expect(throws: HypervisorError.self) { try reading.open() }
        #expect(error?.description.contains("disk \(path): another machine") == true)
        #expect(open.count == 1)
    }
}
