/// An entry of an archive, without the content that follows a file's.
public struct TarEntry: Sendable, Equatable {
    public enum Kind: Sendable, Equatable {
        case file, directory, symbolicLink, hardLink, fifo, characterDevice, blockDevice
    }

    /// An extended attribute.
    public struct Attribute: Sendable, Equatable {
        public var name: [UInt8]
        public var value: [UInt8]

        public init(name: [UInt8], value: [UInt8]) { (self.name, self.value) = (name, value) }
    }

    public var kind: Kind
    /// The path as the archive has it, without a slash at its end.
    public var name: [UInt8]
    /// Permissions and the three bits beside them: 0o7777.
    public var mode: UInt32
    public var uid: UInt32
    public var gid: UInt32
    /// Bytes of content; 0 of everything but a file.
    public var size: Int64
    /// Seconds since the epoch, and nanoseconds.
    public var modified: (seconds: Int64, nanoseconds: Int32)
    /// Of a symbolic link: where it leads. Of a hard link: the entry that it is another name of.
    public var linkTarget: [UInt8]
    /// Of a device.
    public var device: (major: UInt32, minor: UInt32)
    public var attributes: [Attribute]

    public init(
        _ kind: Kind, _ name: [UInt8], mode: UInt32 = 0o644, uid: UInt32 = 0, gid: UInt32 = 0, size: Int64 = 0,
        modified: (seconds: Int64, nanoseconds: Int32) = (0, 0), linkTarget: [UInt8] = [],
        device: (major: UInt32, minor: UInt32) = (0, 0), attributes: [Attribute] = []
    ) {
        (self.kind, self.name, self.mode, self.uid, self.gid) = (kind, name, mode, uid, gid)
        (self.size, self.modified, self.linkTarget) = (size, modified, linkTarget)
        (self.device, self.attributes) = (device, attributes)
    }

    public static func == (one: Self, other: Self) -> Bool {
        one.kind == other.kind && one.name == other.name && one.mode == other.mode && one.uid == other.uid
            && one.gid == other.gid && one.size == other.size && one.modified == other.modified
            && one.linkTarget == other.linkTarget && one.device == other.device && one.attributes == other.attributes
    }

    /// The components of its name, without empty ones and `.`.
    ///
    /// - Throws: `ArchiveError.malformed` for `..`, which could lead out of the directory that the archive is unpacked in.
    public func components() throws(ArchiveError) -> [[UInt8]] { try Self.components(name) }

    static func components(_ name: [UInt8]) throws(ArchiveError) -> [[UInt8]] {
        let parts = name.split(separator: UInt8(ascii: "/")).map(Array.init).filter { $0 != [UInt8(ascii: ".")] }
        if parts.contains([UInt8(ascii: "."), UInt8(ascii: ".")]) {
            throw .malformed("\(shown(name)): a name with .. in it")
        }
        return parts
    }
}
