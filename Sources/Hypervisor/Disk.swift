import Glibc
import LinuxSystem
import VMMControl

/// A disk of a virtual machine: files or block devices of the host, taken as they are, whatever is in them.
public struct Disk: Sendable, Equatable, Codable {
    /// A file or block device of a disk.
    public struct Part: Sendable, Equatable, Codable {
        /// Absolute path.
        public var path: String
        /// How many of its bytes are the disk's; 0: all that it has.
        public var bytes: UInt64

        public init(path: String, bytes: UInt64 = 0) { (self.path, self.bytes) = (path, bytes) }
    }

    /// Where a part of a disk begins: at a multiple of so many bytes.
    public static let alignment: UInt64 = 4096
    /// How many queues a disk may have: one for each vCPU, up to this.
    private static let maximumQueues = 4

    package static func queues(vcpus: Int) -> UInt8 { UInt8(max(1, min(vcpus, maximumQueues))) }

    /// How many parts a disk may have: its partitions' numbers in the guest are less than 256.
    public static let maximumParts = DiskFiles<Int32>.maximumCount

    /// One after the other; only a read-only disk may have several, whose sizes are known.
    public var parts: [Part]
    public var readOnly: Bool
    /// The serial number by which the guest finds it: 20 bytes of ASCII at most. Disks of the same parts and the same access have the same.
    public let id: String

    public init(parts: [Part], readOnly: Bool) {
        self.parts = parts
        self.readOnly = readOnly
        id = "disk" + textHash("\(readOnly)\n\(parts.map { "\($0.path) \($0.bytes)" })")
    }

    public init(path: String, readOnly: Bool) { self.init(parts: [Part(path: path)], readOnly: readOnly) }

    /// Offset and length of each part on the disk, bytes.
    public var places: [(offset: UInt64, bytes: UInt64)] {
        var end: UInt64 = 0
        return parts.map { part in
            let offset = (end + Self.alignment - 1) / Self.alignment * Self.alignment
            end = offset + part.bytes
            return (offset, part.bytes)
        }
    }

    /// Its files, open for as much as the disk allows, and claimed: as long as one of the descriptors is open, in whatever process,
    /// nobody writes there who is not this disk.
    ///
    /// - Throws: `HypervisorError` with the path of one that another machine or the host uses.
    func open() throws -> OpenDisk {
        OpenDisk(files: try parts.map { try Self.open($0.path, readOnly: readOnly) }, bytes: parts.map(\.bytes))
    }

    private static func open(_ path: String, readOnly: Bool) throws -> SharedDescriptor {
        var facts = stat()
        try check("stat", path, stat(path, &facts))
        let isDevice = facts.st_mode & S_IFMT == S_IFBLK
        // Of a block device O_EXCL means: it is not mounted, and no other claims it (open(2)).
        let flags = readOnly ? O_RDONLY : isDevice ? O_RDWR | O_EXCL : O_RDWR
        let file: SharedDescriptor
        do throws(SystemError) { file = SharedDescriptor(try OwnedDescriptor.open(path, flags)) } catch {
            guard error.errno == .resourceBusy else { throw error }
            throw HypervisorError("disk \(path): the host or another machine uses it")
        }
        if !isDevice, flock(file.raw, (readOnly ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0, errno == EWOULDBLOCK {
            throw HypervisorError("disk \(path): another machine, or another disk of this one, uses it")
        }
        return file
    }
}

/// A disk's files.
struct OpenDisk {
    var files: [SharedDescriptor]
    var bytes: [UInt64]

    /// Hands them to a process in a request.
    @discardableResult
    func send<R>(_ request: (DiskFiles<Int32>) throws -> R) rethrows -> R {
        try withExtendedLifetime(files) { try request(DiskFiles(files: files.map(\.raw), bytes: bytes)) }
    }
}
