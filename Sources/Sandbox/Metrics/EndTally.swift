import Glibc
import Hypervisor
import LinuxSystem
import Telemetry

/// How many machines of this host have ended since it booted, by cause: the pods' own counters go with their servers.
///
/// It is a file of numbers, 8 bytes each, in the order of `VMEnd.causes`. A lock of the file (flock(2)) keeps two from adding at once.
package struct EndTally: Sendable {
    private let path: String

    package init(path: String) { self.path = path }

    /// For all pods of the host, whatever their roots are, as with `PodUser.file`.
    ///
    /// - Parameter root: holds the states of pods.
    package init(root: String) {
        self.init(path: access("/run", W_OK) == 0 ? "/run/martlet.ends" : "\(root)/.ends")
    }

    /// Adds an end.
    package func count(_ end: VMEnd) throws {
        guard let index = VMEnd.causes.firstIndex(of: end.cause) else { return }
        let file = try OwnedDescriptor.open(path, O_RDWR | O_CREAT, mode: 0o600)
        _ = try retrying("flock", path) { flock(file.raw, LOCK_EX) }
        var number: UInt64 = 0
        let offset = off_t(index * 8)
        _ = try check("read", path, pread(file.raw, &number, 8, offset))
        number = number.littleEndian &+ 1
        var bytes = number.littleEndian
        try check("write", path, pwrite(file.raw, &bytes, 8, offset))
    }

    /// The numbers by cause; all are 0 while no machine has ended.
    package func read() -> [(cause: String, count: UInt64)] {
        var bytes = [UInt8](repeating: 0, count: VMEnd.causes.count * 8)
        if let file = try? OwnedDescriptor.open(path, O_RDONLY) { _ = pread(file.raw, &bytes, bytes.count, 0) }
        return bytes.withUnsafeBytes { bytes in
            VMEnd.causes.enumerated().map { index, cause in
                (cause, UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: index * 8, as: UInt64.self)))
            }
        }
    }
}
