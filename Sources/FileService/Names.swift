import CLinux
import Glibc

/// SYMLINK, MKNOD, MKDIR, LINK, UNLINK, RMDIR, RENAME: what changes a directory.
extension FileServer {
    /// The answer for an entry that was just made.
    private func made(_ parent: Int, _ directory: Int32, _ name: UnsafePointer<CChar>) throws(FileError) -> Int {
        let status = try FileStatus(directory, name)
        noteWhiteout(status, in: directory)
        return put(entry(try node(status, parent: parent, name: name), status))
    }

    func makeLink(_ request: FuseRequest) throws(FileError) -> Int {
        let parent = try writableSlot(request.header.nodeid)
        let name = try request.name(at: 0, last: false)
        let (target, end) = try request.string(at: strlen(name) + 1, longest: Int(PATH_MAX) - 1)
        guard end == request.arguments.count else { throw .invalid }
        let directory = try writableDirectory(parent)
        _ = try asCaller(request.header) { symlinkat(target, directory, name) }
        return try made(parent, directory, name)
    }

    func makeNode(_ request: FuseRequest) throws(FileError) -> Int {
        let parent = try writableSlot(request.header.nodeid)
        let input = try request.fixed(fuse_mknod_in.self)
        let name = try request.name(at: MemoryLayout<fuse_mknod_in>.size)
        let type = input.mode & S_IFMT
        guard [S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK].contains(type) else { throw .invalid }
        let directory = try writableDirectory(parent)
        useUmask(input.umask)
        let isDevice = type == S_IFCHR || type == S_IFBLK
        let device = isDevice ? DeviceNumber.decode(input.rdev) : 0
        if Self.isWhiteout(type: type, device: device) {
            _ = try asCaller(request.header) { makeWhiteout(directory, name) }
        } else {
            if isDevice, !options.allowsDevices { throw .notPermitted }
            let mode = mode_t(input.mode & (S_IFMT | 0o7777))
            _ = try asCaller(request.header) { mknodat(directory, name, mode, device) }
        }
        return try made(parent, directory, name)
    }

    func makeDirectory(_ request: FuseRequest) throws(FileError) -> Int {
        let parent = try writableSlot(request.header.nodeid)
        let input = try request.fixed(fuse_mkdir_in.self)
        let name = try request.name(at: MemoryLayout<fuse_mkdir_in>.size)
        let directory = try writableDirectory(parent)
        useUmask(input.umask)
        _ = try asCaller(request.header) { mkdirat(directory, name, mode_t(input.mode & 0o7777)) }
        return try made(parent, directory, name)
    }

    func link(_ request: FuseRequest) throws(FileError) -> Int {
        let parent = try writableSlot(request.header.nodeid)
        let input = try request.fixed(fuse_link_in.self)
        let name = try request.name(at: MemoryLayout<fuse_link_in>.size)
        let old = try writableSlot(input.oldnodeid)
        guard nodes.slots[old].fileSystem == nodes.slots[parent].fileSystem else { throw .crossDevice }
        guard nodes.slots[old].identity.type != S_IFDIR else { throw .notPermitted }
        let directory = try writableDirectory(parent)
        // Not AT_EMPTY_PATH: that needs CAP_DAC_READ_SEARCH.
        let path = procPath(try writableDescriptor(old))
        if linkat(proc.raw, path, directory, name, Int32(AT_SYMLINK_FOLLOW)) < 0 { throw .last }
        return try made(parent, directory, name)
    }

    /// UNLINK and RMDIR.
    func remove(_ request: FuseRequest, directory isDirectory: Bool) throws(FileError) -> Int {
        let parent = try writableSlot(request.header.nodeid)
        let name = try request.name(at: 0)
        let directory = try writableDirectory(parent)
        let node = try prepareRemoval(parent, directory, name)
        if unlinkat(directory, name, isDirectory ? Int32(AT_REMOVEDIR) : 0) < 0 { throw .last }
        if let node { removed(node) }
        return 0
    }

    /// The node whose location this is, with a descriptor: soon it can't be reached by the name. Nil if the guest does not
    /// know the file, or knows it by another name.
    private func prepareRemoval(
        _ parent: Int, _ directory: Int32, _ name: UnsafePointer<CChar>
    ) throws(FileError) -> Int? {
        let status = try FileStatus(directory, name)
        guard let slot = nodes.find(nodes.slots[parent].fileSystem, status.identity),
            nodes.slots[slot].parent == parent, let known = nodes.slots[slot].name, strcmp(known, name) == 0
        else { return nil }
        // Without a descriptor to spare the file is just gone for the guest, as it asked.
        if nodes.slots[slot].handles == 0 { _ = try? descriptor(slot) }
        return slot
    }

    private func removed(_ slot: Int) {
        nodes.forgetLocation(slot)
        nodes.limitUnlocated(slot)
    }

    /// RENAME and RENAME2.
    func rename(_ request: FuseRequest, extended: Bool) throws(FileError) -> Int {
        let oldParent = try writableSlot(request.header.nodeid)
        var flags: UInt32 = 0
        var newNumber: UInt64
        var start = MemoryLayout<fuse_rename_in>.size
        if extended {
            let input = try request.fixed(fuse_rename2_in.self)
            (newNumber, flags) = (input.newdir, input.flags)
            start = MemoryLayout<fuse_rename2_in>.size
        } else {
            newNumber = try request.fixed(fuse_rename_in.self).newdir
        }
        let newParent = try writableSlot(newNumber)
        let oldName = try request.name(at: start, last: false)
        let newName = try request.name(at: start + strlen(oldName) + 1)
        guard nodes.slots[oldParent].fileSystem == nodes.slots[newParent].fileSystem else { throw .crossDevice }
        // RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT
        guard flags & ~7 == 0 else { throw .invalid }
        try move((oldParent, oldName), (newParent, newName), flags)
        return 0
    }

    private typealias Entry = (parent: Int, name: UnsafePointer<CChar>)

    private func move(_ old: Entry, _ new: Entry, _ flags: UInt32) throws(FileError) {
        let fileSystem = nodes.slots[old.parent].fileSystem
        let from = try writableDirectory(old.parent)
        let to = try writableDirectory(new.parent)
        let movingStatus = try FileStatus(from, old.name)
        let replacedStatus = try? FileStatus(to, new.name)
        let moving = movingStatus.identity
        let replaced = replacedStatus?.identity
        let exchange = flags & 2 != 0
        let removing = replaced != nil && !exchange ? try prepareRemoval(new.parent, to, new.name) : nil
        if renameEntry(from, old.name, to, new.name, flags) < 0 { throw .last }
        noteWhiteout(movingStatus, in: to)
        if exchange, let replacedStatus { noteWhiteout(replacedStatus, in: from) }
        // Two names of one file: rename(2) leaves both.
        if replaced == moving { return }
        if let removing { removed(removing) }
        if let slot = nodes.find(fileSystem, moving) {
            nodes.setLocation(slot, parent: new.parent, name: new.name, moved: true)
        }
        if exchange, let replaced, let slot = nodes.find(fileSystem, replaced) {
            nodes.setLocation(slot, parent: old.parent, name: old.name, moved: true)
        }
    }
}
