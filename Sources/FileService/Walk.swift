import CLinux
import Glibc

/// How the server gets from a node to the file.
extension FileServer {
    /// One step down: nothing that leads anywhere else is followed.
    private static let resolve: UInt64 = 0x08 | 0x04 | 0x02  // RESOLVE_BENEATH | NO_SYMLINKS | NO_MAGICLINKS

    /// The slot of the node that a request is about; ESTALE for a number that nobody has (any more).
    func slot(_ number: UInt64) throws(FileError) -> Int {
        guard let slot = nodes.slot(number), !nodes.slots[slot].dead else { throw .stale }
        return slot
    }

    /// The slot of a node that may be changed; EROFS if it is served read-only.
    func writableSlot(_ number: UInt64) throws(FileError) -> Int {
        let slot = try slot(number)
        guard let share = share(nodes.slots[slot].share), !share.readOnly else { throw .readOnly }
        return slot
    }

    /// Opens an entry of a directory without opening the file (O_PATH).
    func openEntry(_ directory: Int32, _ name: UnsafePointer<CChar>) throws(FileError) -> Int32 {
        let flags = UInt64(UInt32(bitPattern: martlet_O_PATH | O_NOFOLLOW | O_CLOEXEC))
        var raw = martlet_openat2(directory, name, flags, 0, Self.resolve)
        if raw < 0, errno == EMFILE || errno == ENFILE, nodes.evict() {
            raw = martlet_openat2(directory, name, flags, 0, Self.resolve)
        }
        if raw < 0 { throw .last }
        return raw
    }

    /// Creates an entry that must not exist and opens it.
    func createEntry(_ directory: Int32, _ name: UnsafePointer<CChar>, _ flags: Int32, _ mode: UInt32) -> Int32 {
        let all = flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC
        return martlet_openat2(directory, name, UInt64(UInt32(bitPattern: all)), UInt64(mode), Self.resolve)
    }

    /// The O_PATH descriptor of a node, opened now if it has none: by walking down from the last directory on its
    /// way that has one, and checking at each step that the file is still the one that the guest means.
    func descriptor(_ slot: Int) throws(FileError) -> Int32 {
        if slot == NodeTable.root { throw .readOnly }
        if nodes.slots[slot].descriptor >= 0 {
            nodes.touch(slot)
            return nodes.slots[slot].descriptor
        }
        var way = [slot]
        var above = nodes.slots[slot].parent
        while above > NodeTable.root, nodes.slots[above].descriptor < 0, way.count <= nodes.slots.count {
            way.append(above)
            above = nodes.slots[above].parent
        }
        for step in way.reversed() {
            // Kept for this step only: the way may be longer than there are descriptors.
            let parent = nodes.slots[step].parent
            let usedBefore = nodes.slots[parent].usedBy
            let keep = step == way.last ? usedBefore == nodes.request : false
            if nodes.slots[parent].descriptor >= 0 { nodes.touch(parent) }
            defer { if !keep { nodes.slots[parent].usedBy = 0 } }
            do throws(FileError) {
                try reopen(step)
            } catch {
                try reopenThroughHandle(step, otherwise: error)
            }
        }
        return nodes.slots[slot].descriptor
    }

    private func reopen(_ slot: Int) throws(FileError) {
        let node = nodes.slots[slot]
        guard node.parent > NodeTable.root, let name = node.name else { throw .stale }
        let directory = nodes.slots[node.parent].descriptor
        guard directory >= 0, !node.dead else { throw .stale }
        let raw: Int32
        do throws(FileError) {
            raw = try openEntry(directory, name)
        } catch {
            throw error.code == ENFILE || error.code == EMFILE ? .full : .stale
        }
        guard let status = try? FileStatus(of: raw), status.identity == node.identity else {
            close(raw)
            throw .stale
        }
        try nodes.install(slot, raw)
    }

    /// A file that is gone from its place is still there for who has it open.
    private func reopenThroughHandle(_ slot: Int, otherwise error: FileError) throws(FileError) {
        guard error == .stale, nodes.slots[slot].handles > 0, let file = handles.any(of: nodes.number(slot)) else {
            throw error
        }
        let raw = martlet_openat(proc.raw, procPath(file.descriptor), martlet_O_PATH | O_CLOEXEC)
        if raw < 0 { throw .last }
        try nodes.install(slot, raw)
    }

    /// The descriptor of a directory node; ENOTDIR for another kind.
    func directory(_ slot: Int) throws(FileError) -> Int32 {
        guard nodes.slots[slot].identity.type == S_IFDIR else { throw .notDirectory }
        return try descriptor(slot)
    }

    /// Opens a regular file or a directory for input and output. Nothing else: to open a fifo can block, and to
    /// open a device does whatever the device does; the guest's kernel has its own for these.
    func openForIO(_ slot: Int, _ flags: Int32) throws(FileError) -> Int32 {
        let type = nodes.slots[slot].identity.type
        guard type == S_IFREG || type == S_IFDIR else { throw FileError(type == S_IFLNK ? ELOOP : ENXIO) }
        let path = try descriptor(slot)
        let all = flags & ~(O_NOFOLLOW | O_CREAT | O_EXCL | O_NOCTTY) | O_NONBLOCK | O_CLOEXEC
        var raw = martlet_openat(proc.raw, procPath(path), all)
        if raw < 0, errno == EMFILE || errno == ENFILE, nodes.evict() {
            raw = martlet_openat(proc.raw, procPath(path), all)
        }
        if raw < 0 { throw .last }
        return raw
    }

    // MARK: Nodes of entries

    /// The node of a file just seen as `name` in the directory of slot `parent`, without a lookup counted yet.
    func node(_ status: FileStatus, parent: Int, name: UnsafePointer<CChar>) throws(FileError) -> Int {
        let share = nodes.slots[parent].share
        let identity = status.identity
        let slot: Int
        if let known = nodes.find(share, identity) {
            slot = known
            nodes.place(slot, parent: parent, name: name)
        } else {
            slot = try nodes.add(share, identity, parent: parent, name: name)
        }
        show(slot, parentDevice: nodes.slots[parent].identity.device)
        return slot
    }

    /// Decides what the guest's stat(2) shows, so that device and inode number together are unique there: a directory
    /// of another file system becomes a submount with a device number of its own; another kind of file, which can't,
    /// gets a number that no file of the directory's file system has.
    private func show(_ slot: Int, parentDevice: UInt64) {
        let identity = nodes.slots[slot].identity
        if nodes.slots[slot].isShareRoot { return }
        let foreign = identity.device != parentDevice
        let submount = foreign && identity.type == S_IFDIR && submounts
        nodes.slots[slot].attributeFlags = submount ? FuseFlag.attributeSubmount : 0
        nodes.slots[slot].shownInode = (foreign && !submount) || !submounts ? foreignInode(identity) : identity.inode
    }

    /// The answer of LOOKUP and its like; counts one lookup.
    func entry(_ slot: Int, _ status: FileStatus) -> fuse_entry_out {
        nodes.addLookup(slot)
        var out = fuse_entry_out()
        out.nodeid = nodes.number(slot)
        out.entry_valid = FuseLimits.validity
        out.attr_valid = FuseLimits.validity
        out.attr = attributes(slot, status)
        out.attr.ino = entryInode(slot)
        return out
    }

    func attributes(_ slot: Int, _ status: FileStatus) -> fuse_attr {
        let node = nodes.slots[slot]
        return status.attributes(inode: shownInode(node), flags: submounts ? node.attributeFlags : 0)
    }

    private func shownInode(_ node: Node) -> UInt64 {
        let isForeign = node.isShareRoot && (node.identity.type != S_IFDIR || !submounts)
        return isForeign ? foreignInode(node.identity) : node.shownInode
    }

    /// The number of an entry. As such a submount is the directory that it hides, in the device of the directory above;
    /// as itself, in GETATTR, it is the root of its own device.
    func entryInode(_ slot: Int) -> UInt64 {
        let node = nodes.slots[slot]
        return node.attributeFlags != 0 ? foreignInode(node.identity) : shownInode(node)
    }

    /// What the host says of a node now.
    func status(_ slot: Int) throws(FileError) -> FileStatus {
        let node = nodes.slots[slot]
        if node.descriptor < 0, node.parent > NodeTable.root, let name = node.name {
            // Cheaper than to open the file: most are only ever looked at.
            let directory = try descriptor(node.parent)
            if let status = try? FileStatus(directory, name), status.identity == node.identity { return status }
        }
        return try FileStatus(of: descriptor(slot))
    }
}
