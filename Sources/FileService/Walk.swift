import CLinux
import Glibc

/// How the server gets from a node to the file.
extension FileServer {
    /// One step down: nothing that leads anywhere else is followed.
    static let resolve: UInt64 = 0x08 | 0x04 | 0x02  // RESOLVE_BENEATH | NO_SYMLINKS | NO_MAGICLINKS

    /// The slot of the node that a request is about.
    ///
    /// - Throws: ESTALE for a number that nobody has (any more).
    func slot(_ number: UInt64) throws(FileError) -> Int {
        guard let slot = nodes.slot(number), !nodes.slots[slot].isStale else { throw .stale }
        return slot
    }

    /// The slot of a node that may be changed.
    ///
    /// - Throws: EROFS if only read-only shares lead to it.
    func writableSlot(_ number: UInt64) throws(FileError) -> Int {
        let slot = try slot(number)
        guard isWritable(slot) else { throw .readOnly }
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

    /// The O_PATH descriptor of a node, opened now if it has none.
    func descriptor(_ slot: Int) throws(FileError) -> Int32 {
        let node = nodes.slots[slot]
        if node.isSynthetic { throw .readOnly }
        if node.descriptor >= 0 {
            nodes.touch(slot)
            return node.descriptor
        }
        if node.rootDescriptor >= 0 { return node.rootDescriptor }
        return try walk(to: slot, through: nil)
    }

    /// The O_PATH descriptor of a node through which the file can be changed: of the mount of a writable share, and the
    /// same one for all nodes to which that share leads.
    ///
    /// - Throws: EROFS if only read-only shares lead to it.
    func writableDescriptor(_ slot: Int) throws(FileError) -> Int32 {
        if nodes.slots[slot].isSynthetic { throw .readOnly }
        guard let root = nodes.writableRoot(above: slot) else {
            guard isWritable(slot) else { throw .readOnly }
            return try descriptor(slot)
        }
        if slot == root { return nodes.slots[slot].rootDescriptor }
        if nodes.slots[slot].descriptor >= 0, nodes.slots[slot].descriptorShare == nodes.slots[root].rootShare {
            nodes.touch(slot)
            return nodes.slots[slot].descriptor
        }
        return try walk(to: slot, through: root)
    }

    /// Opens a node's descriptor by walking down, from the root of a share that is given, or else from the last directory
    /// on the path that has a descriptor. Each step checks that the file is still the one that the guest means.
    private func walk(to slot: Int, through root: Int?) throws(FileError) -> Int32 {
        let share = root.map { nodes.slots[$0].rootShare }
        var path = [slot]
        var top = nodes.slots[slot].parent
        while top != 0, top != root, path.count <= nodes.slots.count {
            let node = nodes.slots[top]
            if let share {
                if node.descriptor >= 0, node.descriptorShare == share { break }
            } else if node.descriptor >= 0 || node.isShareRoot {
                break
            }
            path.append(top)
            top = node.parent
        }
        var last = top
        for step in path.reversed() {
            let directory = last
            // Kept for this step only: the path may be longer than there are descriptors.
            let usedBefore = nodes.slots[directory].usedBy
            let keeps = directory == top && usedBefore == nodes.request
            if nodes.slots[directory].descriptor >= 0 { nodes.touch(directory) }
            defer { if !keeps { nodes.slots[directory].usedBy = 0 } }
            do throws(FileError) {
                try reopen(step, in: directory, isRoot: directory == root)
            } catch {
                try reopenThroughHandle(step, otherwise: error)
            }
            last = step
        }
        return nodes.slots[slot].descriptor
    }

    /// - Parameter isRoot: use the descriptor of the share whose root the directory is.
    private func reopen(_ slot: Int, in directory: Int, isRoot: Bool) throws(FileError) {
        let node = nodes.slots[slot]
        guard directory != 0, let name = node.name, !node.isStale else { throw .stale }
        let parent = nodes.slots[directory]
        let usesRoot = isRoot || parent.descriptor < 0
        let raw: Int32
        do throws(FileError) {
            raw = try openEntry(usesRoot ? parent.rootDescriptor : parent.descriptor, name)
        } catch {
            if error.code == ENFILE || error.code == EMFILE { throw .full }
            nodes.slots[slot].isMislocated = true
            throw .stale
        }
        guard let status = try? FileStatus(of: raw), status.identity == node.identity else {
            close(raw)
            nodes.slots[slot].isMislocated = true
            throw .stale
        }
        try nodes.install(slot, raw, share: usesRoot ? parent.rootShare : parent.descriptorShare)
    }

    /// A file that has lost its name is still there for who has it open.
    private func reopenThroughHandle(_ slot: Int, otherwise error: FileError) throws(FileError) {
        guard error == .stale, nodes.slots[slot].handles > 0, let file = handles.any(of: nodes.number(slot)) else {
            throw error
        }
        let raw = martlet_openat(proc.raw, procPath(file.descriptor), martlet_O_PATH | O_CLOEXEC)
        if raw < 0 { throw .last }
        try nodes.install(slot, raw, share: -1)
    }

    /// The descriptor of a directory node; ENOTDIR for another kind.
    func directory(_ slot: Int) throws(FileError) -> Int32 {
        guard nodes.slots[slot].isDirectory else { throw .notDirectory }
        return try descriptor(slot)
    }

    /// The descriptor of a directory node in which entries can be changed.
    func writableDirectory(_ slot: Int) throws(FileError) -> Int32 {
        guard nodes.slots[slot].isDirectory else { throw .notDirectory }
        return try writableDescriptor(slot)
    }

    /// Opens a regular file or a directory for input and output. Nothing else: to open a fifo can block, and to
    /// open a device does whatever the device does; the guest's kernel has its own for these.
    ///
    /// - Parameter writes: through a writable share, also where the flags don't say so.
    func openForIO(_ slot: Int, _ flags: Int32, writes: Bool = false) throws(FileError) -> Int32 {
        let type = nodes.slots[slot].identity.type
        guard type == S_IFREG || type == S_IFDIR else { throw FileError(type == S_IFLNK ? ELOOP : ENXIO) }
        let writes = writes || flags & O_ACCMODE != O_RDONLY || flags & O_TRUNC != 0
        let path = writes ? try writableDescriptor(slot) : try descriptor(slot)
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
        let fileSystem = nodes.slots[parent].fileSystem
        let identity = status.identity
        let slot: Int
        if let known = nodes.find(fileSystem, identity) {
            slot = known
        } else {
            slot = try newNode(fileSystem, identity)
        }
        nodes.setLocation(slot, parent: parent, name: name)
        return slot
    }

    /// The node of a file that the guest does not know yet.
    func newNode(_ fileSystem: Int32, _ identity: FileIdentity) throws(FileError) -> Int {
        try nodes.add(fileSystem, identity, isForeign: isForeign(fileSystem, identity))
    }

    /// Whether a file's own inode number may clash in the guest.
    func isForeign(_ fileSystem: Int32, _ identity: FileIdentity) -> Bool {
        fileSystems.first { $0.id == fileSystem }?.device != identity.device
    }

    /// The answer of LOOKUP and its like; counts one lookup.
    func entry(_ slot: Int, _ status: FileStatus) -> fuse_entry_out {
        nodes.addLookup(slot)
        return entry(slot, attributes(slot, status))
    }

    func entry(_ slot: Int, _ attributes: fuse_attr) -> fuse_entry_out {
        var out = fuse_entry_out()
        out.nodeid = nodes.number(slot)
        out.entry_valid = FuseLimits.validity
        out.attr_valid = FuseLimits.validity
        out.attr = attributes
        return out
    }

    func attributes(_ slot: Int, _ status: FileStatus) -> fuse_attr {
        var result = status.attributes(inode: shownInode(slot))
        if status.mayBeWhiteout, isMarked(slot) { result.mode = S_IFCHR }
        return result
    }

    /// What the guest's stat(2) shows, so that device and inode number together are unique there: the host's number, or
    /// one that no file has for what is of another device than the guest's device number stands for.
    func shownInode(_ slot: Int) -> UInt64 {
        let isForeign = nodes.slots[slot].isForeign || !submounts
        let identity = nodes.slots[slot].identity
        return isForeign ? foreignInode(identity) : identity.inode
    }

    /// What the host says of a node now.
    func status(_ slot: Int) throws(FileError) -> FileStatus {
        let node = nodes.slots[slot]
        if node.descriptor < 0, !node.isShareRoot, node.parent != 0, let name = node.name {
            // Cheaper than to open the file: most are only ever looked at.
            let directory = try descriptor(node.parent)
            if let status = try? FileStatus(directory, name), status.identity == node.identity { return status }
        }
        return try FileStatus(of: descriptor(slot))
    }
}
