import CLinux
import Glibc
import LinuxSystem

/// Unpacks an archive below a directory.
///
/// A file, link or device replaces what has its name, but a directory; nothing is written into a file that is there, so no other name
/// of it is changed. Directories get their modes and times when all that is in them is there.
public struct Unpacker {
    private let destination: CopyDestination
    private let policy: UnpackPolicy
    /// The directories of the archive, by their paths below the destination, with what they get at the end.
    private var directories: [[UInt8]: TarEntry] = [:]
    /// The directory of the last entry.
    private var parent: (path: [UInt8], descriptor: SharedDescriptor)?

    /// The names of what was left out, as far as there is room, and how many there were.
    public private(set) var leftOut: (names: [String], count: Int) = ([], 0)
    private static let mostNames = 20

    public init(into destination: CopyDestination, _ policy: UnpackPolicy) {
        (self.destination, self.policy) = (destination, policy)
    }

    /// Unpacks an archive to its end.
    ///
    /// - Parameter first: the entry that `reader` has read already; nil: it has come to the archive's end.
    public mutating func unpack(_ reader: TarReader, first: TarEntry?) throws {
        do {
            var next = first
            while let entry = next {
                try add(entry, reader)
                next = try reader.next()
            }
        } catch {
            // What is there is not to stay closed.
            try? finishDirectories()
            throw error
        }
        try finishDirectories()
    }

    private mutating func add(_ entry: TarEntry, _ reader: TarReader) throws {
        let components = try destination.components(entry.name)
        guard let name = components.last else {
            // The destination itself: it stays as it is, unless it was made for this.
            if destination.isNew, entry.kind == .directory { directories[[]] = entry }
            return
        }
        let directory = try parent(components.dropLast(), of: entry)
        var text: String { shown(entry.name) }
        switch entry.kind {
        case .directory:
            try makeDirectory(name, in: directory, text)
            directories[Self.path(components)] = entry
        case .file: try makeFile(name, in: directory, entry, reader)
        case .symbolicLink:
            try remove(name, in: directory, text)
            try check(
                "symlink", text,
                entry.linkTarget.withCName { target in
                    name.withCName { symlinkat(target, directory.raw, $0) }
                })
            try finish(name, in: directory, entry)
        case .hardLink:
            let target = try destination.components(entry.linkTarget)
            if target != components { try makeHardLink(name, in: directory, entry, to: target) }
        case .fifo, .characterDevice, .blockDevice:
            guard policy.makesDevices else { return leaveOut(text) }
            try makeDevice(name, in: directory, entry)
        }
    }

    private mutating func leaveOut(_ name: String) {
        leftOut.count += 1
        if leftOut.names.count < Self.mostNames { leftOut.names.append(name) }
    }

    // MARK: Directories

    /// How a path below the destination is resolved.
    private var resolve: Int32 {
        policy.followsLinks ? RESOLVE_NO_MAGICLINKS : RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
    }

    /// The directory of an entry, made where it is missing.
    private mutating func parent(_ components: ArraySlice<[UInt8]>, of entry: TarEntry) throws -> SharedDescriptor {
        if components.isEmpty { return destination.directory }
        let path = Self.path(components)
        if let parent, parent.path == path { return parent.descriptor }
        let found = try open(Array(components), shown(entry.name))
        parent = (path, found)
        return found
    }

    private func open(_ components: [[UInt8]], _ text: @autoclosure () -> String) throws -> SharedDescriptor {
        do {
            return try openDirectory(Self.path(components), O_PATH, text())
        } catch let error as SystemError where error.errno == .noSuchFileOrDirectory {
            // Above, and this one.
            let above = components.count == 1 ? destination.directory : try open(components.dropLast(), text())
            let made = components[components.count - 1].withCName { mkdirat(above.raw, $0, 0o755) }
            if made != 0, errno != EEXIST { throw SystemError.last("mkdir", text()) }
            return try openDirectory(Self.path(components), O_PATH, text())
        }
    }

    private static func path(_ components: some Collection<[UInt8]>) -> [UInt8] {
        Array(components.joined(separator: [UInt8(ascii: "/")]))
    }

    private func openDirectory(_ path: [UInt8], _ flags: Int32, _ text: @autoclosure () -> String) throws
        -> SharedDescriptor
    {
        do {
            return try openEntry(
                path.isEmpty ? [UInt8(ascii: ".")] : path, in: destination.directory.raw, flags | O_DIRECTORY,
                resolve: resolve, as: text())
        } catch {
            switch error.errno {
            case .tooManySymbolicLinkLevels, .improperLink:
                throw ArchiveError.invalid("\(text()): a symbolic link is in the way to it")
            case .notDirectory:
                throw ArchiveError.invalid("\(text()): something that is no directory is in the way to it")
            default: throw error
            }
        }
    }

    private func makeDirectory(_ name: [UInt8], in directory: SharedDescriptor, _ text: @autoclosure () -> String)
        throws
    {
        // Others may look into it when its mode says so.
        if name.withCName({ mkdirat(directory.raw, $0, 0o700) }) == 0 { return }
        guard errno == EEXIST else { throw SystemError.last("mkdir", text()) }
        do {
            _ = try openEntry(name, in: directory.raw, O_PATH | O_DIRECTORY, resolve: resolve, as: text())
        } catch {
            throw ArchiveError.invalid("\(text()): a directory can't replace what is no directory")
        }
    }

    /// Gives the directories their owners, modes and times, those below before those above.
    private func finishDirectories() throws {
        let all = directories.sorted { $0.key.count > $1.key.count }
        for (path, entry) in all { try finish(openDirectory(path, O_RDONLY, shown(entry.name)), entry) }
    }

    // MARK: Files

    private func makeFile(
        _ name: [UInt8], in directory: SharedDescriptor, _ entry: TarEntry, _ reader: TarReader
    ) throws {
        var text: String { shown(entry.name) }
        let (file, isNew) = try createFile(name, in: directory, text)
        do {
            try reader.content { bytes in
                var rest = bytes
                while !rest.isEmpty {
                    let count = try retrying("write", text) { write(file.raw, rest.baseAddress, rest.count) }
                    rest = UnsafeRawBufferPointer(rebasing: rest[count...])
                }
            }
            try finish(file, entry)
        } catch {
            // Half a file is none.
            if isNew { _ = name.withCName { unlinkat(directory.raw, $0, 0) } }
            throw error
        }
    }

    /// - Returns: the file, and whether it is a new one.
    private func createFile(
        _ name: [UInt8], in directory: SharedDescriptor, _ text: @autoclosure () -> String
    ) throws -> (SharedDescriptor, isNew: Bool) {
        do {
            try remove(name, in: directory, text())
        } catch let error as SystemError where error.errno == .resourceBusy && policy.followsLinks {
            // A file that is mounted there, such as /etc/hosts: its content is replaced.
            let flags = O_WRONLY | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY
            return (try openEntry(name, in: directory.raw, flags, as: text()), false)
        }
        let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW
        return (try openEntry(name, in: directory.raw, flags, mode: 0o600, as: text()), true)
    }

    /// Takes away what has a name, unless it is a directory.
    private func remove(_ name: [UInt8], in directory: SharedDescriptor, _ text: @autoclosure () -> String) throws {
        if name.withCName({ unlinkat(directory.raw, $0, 0) }) == 0 || errno == ENOENT { return }
        if errno == EISDIR { throw ArchiveError.invalid("\(text()): what is no directory can't replace a directory") }
        throw SystemError.last("remove", text())
    }

    private func makeHardLink(
        _ name: [UInt8], in directory: SharedDescriptor, _ entry: TarEntry, to target: [[UInt8]]
    ) throws {
        var text: String { shown(entry.name) }
        guard let last = target.last else { throw ArchiveError.malformed("\(text): a hard link to a directory") }
        let other =
            target.count == 1
            ? destination.directory : try openDirectory(Self.path(target.dropLast()), O_PATH, shown(entry.linkTarget))
        try remove(name, in: directory, text)
        try check(
            "link", text,
            last.withCName { last in
                name.withCName { linkat(other.raw, last, directory.raw, $0, 0) }
            })
    }

    private func makeDevice(_ name: [UInt8], in directory: SharedDescriptor, _ entry: TarEntry) throws {
        var text: String { shown(entry.name) }
        let type: UInt32 = entry.kind == .fifo ? S_IFIFO : entry.kind == .characterDevice ? S_IFCHR : S_IFBLK
        let device = DeviceNumber.number(entry.device)
        try remove(name, in: directory, text)
        try check("mknod", text, name.withCName { mknodat(directory.raw, $0, type | mode(entry), device) })
        try finish(name, in: directory, entry)
    }

    // MARK: Owners, modes and times

    private func mode(_ entry: TarEntry) -> UInt32 { entry.mode & (policy.keepsPrivileges ? 0o7777 : 0o1777) }

    private static func times(_ entry: TarEntry) -> [timespec] {
        let omit = timespec(tv_sec: 0, tv_nsec: (1 << 30) - 2)  // UTIME_OMIT
        return [omit, timespec(tv_sec: Int(entry.modified.seconds), tv_nsec: Int(entry.modified.nanoseconds))]
    }

    /// Of an open file or directory.
    private func finish(_ file: SharedDescriptor, _ entry: TarEntry) throws {
        var text: String { shown(entry.name) }
        if policy.keepsOwners { try check("chown", text, fchown(file.raw, entry.uid, entry.gid)) }
        // After the owner, whose change takes bits of the mode away.
        try check("chmod", text, fchmod(file.raw, mode(entry)))
        for attribute in entry.attributes
        where ExtendedAttributes.isUsers(attribute.name)
            || policy.keepsPrivileges && attribute.name == ExtendedAttributes.capability
        {
            try ExtendedAttributes.set(attribute, of: file.raw, as: text)
        }
        try check("set the time of", text, futimens(file.raw, Self.times(entry)))
    }

    /// Of a link or a device, which is not opened.
    private func finish(_ name: [UInt8], in directory: SharedDescriptor, _ entry: TarEntry) throws {
        var text: String { shown(entry.name) }
        try name.withCName { name in
            if policy.keepsOwners {
                try check("chown", text, fchownat(directory.raw, name, entry.uid, entry.gid, AT_SYMLINK_NOFOLLOW))
            }
            try check(
                "set the time of", text, utimensat(directory.raw, name, Self.times(entry), AT_SYMLINK_NOFOLLOW))
        }
    }
}
