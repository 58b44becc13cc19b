import CLinux
import Glibc

/// SYMLINK, MKNOD, MKDIR, LINK, UNLINK, RMDIR, RENAME: what changes a directory.
extension FileServer {
    /// The answer for an entry that was just made.
    private func made(_ parent: Int, _ directory: Int32, _ name: UnsafePointer<CChar>) throws(FileError) -> Int {
        let status = try FileStatus(directory, name)
        return put(entry(try node(status, parent: parent, name: name), status))
    }

    func makeLink(_ request: FuseRequest) throws(FileError) -> Int {
        let parent = try writableSlot(request.header.nodeid)
        let name = try request.name(at: 0, last: false)
        let (target, end) = try request.string(at: strlen(name) + 1, longest: Int(PATH_MAX) - 1)
        guard end == request.arguments.count else { throw .invalid }
        let directory = try directory(parent)
        _ = try asCaller(request.header) { symlinkat(target, directory, name) }
        return try made(parent, directory, name)
    }

    func makeNode(_ request: FuseRequest) throws(FileError) -> Int {
        let parent = try writableSlot(request.header.nodeid)
        let input = try request.fixed(fuse_mknod_in.self)
        let name = try request.name(at: MemoryLayout<fuse_mknod_in>.size)
        let type = input.mode & S_IFMT
        guard [S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK].contains(type) else { throw .invalid }
        let directory = try directory(parent)
        useUmask(input.umask)
        let device = type == S_IFCHR || type == S_IFBLK ? DeviceNumber.decode(input.rdev) : 0
        _ = try asCaller(request.header) { mknodat(directory, name, mode_t(input.mode & (S_IFMT | 0o7777)), device) }
        return try made(parent, directory, name)
    }

    func makeDirectory(_ request: FuseRequest) throws(FileError) -> Int {
        let parent = try writableSlot(request.header.nodeid)
        let input = try request.fixed(fuse_mkdir_in.self)
        let name = try request.name(at: MemoryLayout<fuse_mkdir_in>.size)
        let directory = try directory(parent)
        useUmask(input.umask)
        _ = try asCaller(request.header) { mkdirat(directory, name, mode_t(input.mode & 0o7777)) }
        return try made(parent, directory, name)
    }

    func link(_ request: FuseRequest) throws(FileError) -> Int {
        let parent = try writableSlot(request.header.nodeid)
        let input = try request.fixed(fuse_link_in.self)
        let name = try request.name(at: MemoryLayout<fuse_link_in>.size)
        let old = try writableSlot(input.oldnodeid)
        guard nodes.slots[old].share == nodes.slots[parent].share else { throw .crossDevice }
        guard nodes.slots[old].identity.type != S_IFDIR else { throw .notPermitted }
        let directory = try directory(parent)
        // Not AT_EMPTY_PATH: that needs CAP_DAC_READ_SEARCH.
        let path = procPath(try descriptor(old))
        if linkat(proc.raw, path, directory, name, Int32(AT_SYMLINK_FOLLOW)) < 0 { throw .last }
        return try made(parent, directory, name)
    }

    /// UNLINK and RMDIR.
    func remove(_ request: FuseRequest, directory isDirectory: Bool) throws(FileError) -> Int {
        let parent = try writableSlot(request.header.nodeid)
        let name = try request.name(at: 0)
        let directory = try directory(parent)
        let doomed = try prepareRemoval(parent, directory, name)
        if unlinkat(directory, name, isDirectory ? Int32(AT_REMOVEDIR) : 0) < 0 { throw .last }
        if let doomed { lose(doomed) }
        return 0
    }

    /// The node that is known by this name, with a descriptor: soon it can't be reached by the name. Nil if the guest
    /// does not know the file, or knows it by another name.
    private func prepareRemoval(
        _ parent: Int, _ directory: Int32, _ name: UnsafePointer<CChar>
    ) throws(FileError) -> Int? {
        let status = try FileStatus(directory, name)
        guard let slot = nodes.find(nodes.slots[parent].share, status.identity), nodes.slots[slot].parent == parent,
            let known = nodes.slots[slot].name, strcmp(known, name) == 0, !nodes.slots[slot].isShareRoot
        else { return nil }
        // Without a descriptor to spare the file is just gone for the guest, as it wished.
        if nodes.slots[slot].handles == 0 { _ = try? descriptor(slot) }
        return slot
    }

    private func lose(_ slot: Int) {
        nodes.forgetPlace(slot)
        nodes.limitPlaceless(slot)
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
        guard nodes.slots[oldParent].share == nodes.slots[newParent].share else { throw .crossDevice }
        // RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT
        guard flags & ~7 == 0 else { throw .invalid }
        try move((oldParent, oldName), (newParent, newName), flags)
        return 0
    }

    private typealias Place = (parent: Int, name: UnsafePointer<CChar>)

    private func move(_ old: Place, _ new: Place, _ flags: UInt32) throws(FileError) {
        let share = nodes.slots[old.parent].share
        let from = try directory(old.parent)
        let to = try directory(new.parent)
        let moving = try FileStatus(from, old.name).identity
        let replaced = try? FileStatus(to, new.name).identity
        let exchange = flags & 2 != 0
        let doomed = replaced != nil && !exchange ? try prepareRemoval(new.parent, to, new.name) : nil
        if martlet_renameat2(from, old.name, to, new.name, flags) < 0 { throw .last }
        // Two names of one file: rename(2) leaves both.
        if replaced == moving { return }
        if let doomed { lose(doomed) }
        if let slot = nodes.find(share, moving) { nodes.place(slot, parent: new.parent, name: new.name) }
        if exchange, let replaced, let slot = nodes.find(share, replaced) {
            nodes.place(slot, parent: old.parent, name: old.name)
        }
    }
}
