import CLinux
import Glibc
import LinuxSystem

/// OPEN, CREATE, OPENDIR, RELEASE, FLUSH: open files.
extension FileServer {
    /// What of the guest's open flags the host's open file gets. Not O_APPEND: where a write goes is in the request,
    /// and pages written back from a mapping must not go to the end. Not O_DIRECT: it is about the guest's cache.
    static let passed = O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC

    private func openFlags(_ flags: UInt32) throws(FileError) -> Int32 {
        let kept = Int32(bitPattern: flags) & Self.passed
        guard kept & O_ACCMODE != O_ACCMODE else { throw .invalid }
        return kept
    }

    func open(_ request: FuseRequest) throws(FileError) -> Int {
        let input = try request.fixed(fuse_open_in.self)
        let flags = try openFlags(input.flags)
        let changes = flags & O_ACCMODE != O_RDONLY || flags & O_TRUNC != 0
        let slot = changes ? try writableSlot(request.header.nodeid) : try slot(request.header.nodeid)
        guard nodes.slots[slot].identity.type == S_IFREG else {
            throw FileError(nodes.slots[slot].identity.type == S_IFDIR ? EISDIR : ENXIO)
        }
        let kill = input.open_flags & FuseFlag.openKillPrivileges != 0
        return put(try opened(slot, flags, kill: kill))
    }

    /// Opens a node's regular file and gives it a handle.
    private func opened(_ slot: Int, _ flags: Int32, kill: Bool) throws(FileError) -> fuse_open_out {
        if handles.isFull { throw .full }
        let raw: Int32
        if kill, flags & O_TRUNC != 0 {
            _ = try writableDescriptor(slot)
            raw = try droppingSetID { () throws(FileError) in try openForIO(slot, flags) }
        } else {
            raw = try openForIO(slot, flags)
        }
        return try handle(slot, raw, flags)
    }

    /// Gives an open descriptor a handle; takes the descriptor over.
    ///
    /// - Parameter isNew: the file was made just now, so the guest has nothing of it in its cache.
    private func handle(
        _ slot: Int, _ raw: Int32, _ flags: Int32, isNew: Bool = false
    ) throws(FileError) -> fuse_open_out {
        let file = try openFile(slot, raw, flags)
        if handles.isFull { throw .full }
        var out = fuse_open_out()
        if !file.isDirectory {
            if !isNew, mayKeepCache(slot, try FileStatus(of: raw)), flags & O_TRUNC == 0 {
                out.open_flags |= FuseFlag.openKeepCache
            }
            // Nothing to flush, so close(2) in the guest need not ask.
            if !file.isWritable { out.open_flags |= FuseFlag.openNoFlush }
        }
        nodes.addHandle(slot)
        out.fh = handles.add(file)
        nodes.slots[slot].lastHandle = out.fh
        return out
    }

    /// Makes an open file of a node's open descriptor; takes the descriptor over.
    func openFile(_ slot: Int, _ raw: Int32, _ flags: Int32) throws(FileError) -> OpenFile {
        let file = try OpenFile(
            descriptor: raw, slot: slot, node: nodes.number(slot), shares: nodes.shares(above: slot),
            isDirectory: nodes.slots[slot].isDirectory, flags: flags, isReadOnly: !isWritable(slot), memory: memory)
        if file.isDirectory { file.hasWhiteouts = hasWhiteouts(raw) }
        return file
    }

    /// Whether the guest's cached pages of a file are still right: when the file was opened last it was as it is now.
    /// A file that changed just before that open proves nothing, as it may have changed again within one tick of
    /// the host's clock for time stamps.
    private func mayKeepCache(_ slot: Int, _ status: FileStatus) -> Bool {
        let change = status.raw.stx_ctime.tv_sec &* 1_000_000_000 &+ Int64(status.raw.stx_ctime.tv_nsec)
        let same = nodes.slots[slot].openedChange == change && nodes.slots[slot].openedSize == status.raw.stx_size
        let age = wallClockNanoseconds() &- change
        nodes.slots[slot].openedChange = age > 100_000_000 ? change : 0
        nodes.slots[slot].openedSize = status.raw.stx_size
        return same && change != 0
    }

    func create(_ request: FuseRequest) throws(FileError) -> Int {
        let parent = try writableSlot(request.header.nodeid)
        let input = try request.fixed(fuse_create_in.self)
        let flags = try openFlags(input.flags)
        let name = try request.name(at: MemoryLayout<fuse_create_in>.size)
        let directory = try writableDirectory(parent)
        if handles.isFull { throw .full }
        useUmask(input.umask)
        let made: Int32?
        do throws(FileError) {
            made = try asCaller(request.header) {
                createEntry(directory, name, flags & ~O_TRUNC | O_NONBLOCK, input.mode & 0o7777)
            }
        } catch {
            guard error.code == EEXIST, Int32(bitPattern: input.flags) & O_EXCL == 0 else { throw error }
            made = nil
        }
        let status: FileStatus
        let slot: Int
        do throws(FileError) {
            status = if let made { try FileStatus(of: made) } else { try FileStatus(directory, name) }
            slot = try node(status, parent: parent, name: name)
        } catch {
            if let made { close(made) }
            throw error
        }
        let out: fuse_open_out
        if let made {
            out = try handle(slot, made, flags, isNew: true)
        } else {
            // Somebody else made it in the meantime. Only the guest's kernel may open what is not a regular file.
            guard status.isRegular else { throw .stale }
            out = try opened(slot, flags, kill: input.open_flags & FuseFlag.openKillPrivileges != 0)
        }
        let size = put(entry(slot, status))
        return size + put(out, at: size)
    }

    /// TMPFILE: a file without a name, as of open(2) with O_TMPFILE. The handle reaches it until a name is linked to it.
    func createUnnamed(_ request: FuseRequest) throws(FileError) -> Int {
        let parent = try writableSlot(request.header.nodeid)
        let input = try request.fixed(fuse_create_in.self)
        let flags = try openFlags(input.flags) & ~O_TRUNC
        guard flags & O_ACCMODE != O_RDONLY else { throw .invalid }
        let directory = try writableDirectory(parent)
        if handles.isFull { throw .full }
        useUmask(input.umask)
        let all = flags | Int32(bitPattern: input.flags) & O_EXCL | martlet_O_TMPFILE | O_NONBLOCK | O_CLOEXEC
        let made = try asCaller(request.header) {
            martlet_openat2(directory, ".", UInt64(UInt32(bitPattern: all)), UInt64(input.mode & 0o7777), Self.resolve)
        }
        let slot: Int
        let status: FileStatus
        do throws(FileError) {
            status = try FileStatus(of: made)
            slot = try newNode(nodes.slots[parent].fileSystem, status.identity)
        } catch {
            close(made)
            throw error
        }
        nodes.slots[slot].formerShares = nodes.shares(above: parent)
        let out = try handle(slot, made, flags, isNew: true)
        let size = put(entry(slot, status))
        return size + put(out, at: size)
    }

    func openDirectory(_ request: FuseRequest) throws(FileError) -> Int {
        let slot = try slot(request.header.nodeid)
        if nodes.slots[slot].isSynthetic { return put(fuse_open_out()) }
        guard nodes.slots[slot].identity.type == S_IFDIR else { throw .notDirectory }
        if handles.isFull { throw .full }
        return put(try handle(slot, try openForIO(slot, O_RDONLY | O_DIRECTORY), O_RDONLY))
    }

    func release(_ request: FuseRequest, directory: Bool) throws(FileError) -> Int {
        let input = try request.fixed(fuse_release_in.self)
        if let slot = nodes.slot(request.header.nodeid), nodes.slots[slot].isSynthetic { return 0 }
        guard let file = handles.find(input.fh, node: request.header.nodeid, directory: directory) else {
            throw .badHandle
        }
        handles.remove(input.fh)
        nodes.removeHandle(file.slot)
        return 0
    }

    /// Written data is the host's as soon as it is written, so there is nothing to do. The guest's kernel asks once, then
    /// knows that, and close(2) costs no FLUSH any more; what a shared mapping has dirtied it writes before, all the same.
    func flush(_ request: FuseRequest) throws(FileError) -> Int {
        let input = try request.fixed(fuse_flush_in.self)
        guard handles.find(input.fh, node: request.header.nodeid, directory: false) != nil else { throw .badHandle }
        throw .notImplemented
    }
}
