import CLinux
import Glibc
public import LinuxSystem

/// A file system of the host: one device number, one superblock, in the guest.
struct FileSystem {
    var id: Int32
    /// Its directory in the root, and that directory's node.
    var name: String
    var slot: Int
    /// The device of the host whose inode numbers the guest sees as they are.
    var device: UInt64
    /// Its directory is no submount, so its files have the root's device number. Linux 6.1 to 6.18 remember of files of a
    /// connection's first mount alone that they have no security.capability, and ask for it before every single write(2)
    /// to others.
    var isHome: Bool
}

/// A directory or file that the guest may reach.
struct Share {
    var id: Int32
    /// Its entry in the file system's directory.
    var name: String
    var fileSystem: Int32
    var readOnly: Bool
    /// The node of its root, and an O_PATH descriptor of it.
    var slot: Int
    var descriptor: Int32
}

extension FileServer {
    /// Gives the guest a directory (its tree, with the mounts in it) or a single file.
    ///
    /// Shares of one file system are one superblock in the guest: a file to which several of them lead is one inode there.
    /// The first file system with a shared directory has the root's device number, each other one a submount of its own.
    ///
    /// - Parameters:
    ///   - name: `FILESYSTEM/ENTRY`, two file names: the share is this path below the root. FILESYSTEM is the same for
    ///     shares of one file system of the host.
    ///   - descriptor: the directory or file; the server keeps it.
    ///   - readOnly: the guest may not change what only read-only shares lead to.
    /// - Throws: EINVAL for another name or a symbolic link, EEXIST when the name is in use, ENFILE when there are too many.
    public func addShare(name: String, descriptor: consuming OwnedDescriptor, readOnly: Bool) throws(SystemError) {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 2, parts.allSatisfy(isFileName) else {
            throw SystemError("add share", name, errno: .invalidArgument)
        }
        let status: FileStatus
        do { status = try FileStatus(of: descriptor.raw) } catch {
            throw SystemError("add share: statx", name, errno: .init(rawValue: error.code))
        }
        guard status.type != S_IFLNK else {
            throw SystemError("add share: a symbolic link", name, errno: .invalidArgument)
        }
        let raw = descriptor.release()
        do throws(FileError) {
            try locked { () throws(FileError) in
                let fileSystem = try fileSystem(parts[0], status)
                defer { removeIfUnused(fileSystem.id) }
                if shares.contains(where: { $0.fileSystem == fileSystem.id && $0.name == parts[1] }) {
                    throw FileError(EEXIST)
                }
                let slot: Int
                if let known = nodes.find(fileSystem.id, status.identity) {
                    slot = known
                } else {
                    slot = try newNode(fileSystem.id, status.identity)
                }
                shares.append(
                    Share(
                        id: nextID, name: parts[1], fileSystem: fileSystem.id, readOnly: readOnly, slot: slot,
                        descriptor: raw))
                nextID += 1
                setRoot(slot)
            }
        } catch {
            close(raw)
            throw SystemError("add share", name, errno: .init(rawValue: error.code))
        }
    }

    private func fileSystem(_ name: String, _ status: FileStatus) throws(FileError) -> FileSystem {
        if let known = fileSystems.first(where: { $0.name == name }) { return known }
        if home == nil, status.isDirectory { home = name }
        let new = FileSystem(
            id: nextID, name: name, slot: try nodes.addSynthetic(), device: status.device, isHome: name == home)
        nextID += 1
        nodes.slots[new.slot].fileSystem = new.id
        fileSystems.append(new)
        return new
    }

    private func removeIfUnused(_ id: Int32) {
        guard !shares.contains(where: { $0.fileSystem == id }),
            let index = fileSystems.firstIndex(where: { $0.id == id })
        else { return }
        let slot = fileSystems.remove(at: index).slot
        nodes.invalidate(slot)
        nodes.release(slot)
    }

    /// Notes in a node whether it is the root of a share.
    func setRoot(_ slot: Int) {
        let all = shares.filter { $0.slot == slot }
        let share = all.first { !$0.readOnly } ?? all.first
        nodes.slots[slot].rootShare = share?.id ?? -1
        nodes.slots[slot].isRootWritable = share.map { !$0.readOnly } ?? false
        nodes.slots[slot].rootDescriptor = share?.descriptor ?? -1
        nodes.relist(slot)
    }

    /// Takes a share away, in use or not. What no other share leads to answers ESTALE, and its descriptors are closed (one
    /// that a transfer uses right now, when that is done). What only read-only shares still lead to can't be written, by
    /// what is open already neither.
    ///
    /// - Throws: ENOENT when there is no share of that name.
    public func removeShare(name: String) throws(SystemError) {
        let known = locked {
            guard let index = shares.firstIndex(where: { name == self.name(of: $0) }) else { return false }
            let share = shares.remove(at: index)
            setRoot(share.slot)
            invalidateUnreachable(after: share)
            close(share.descriptor)
            removeIfUnused(share.fileSystem)
            return true
        }
        if !known { throw SystemError("remove share", name, errno: .noSuchFileOrDirectory) }
    }

    /// Ends the nodes and open files to which no share leads since `gone` was removed.
    private func invalidateUnreachable(after gone: Share) {
        var isReachable = nodes.reachable(in: gone.fileSystem)
        func remains(_ shares: (nearest: Int32, outermost: Int32)) -> Bool {
            share(shares.nearest) != nil || share(shares.outermost) != nil
        }
        // A file without a location, or opened by a way that another share had at that time, lives on with that share.
        for file in handles.all
        where nodes.slots[file.slot].fileSystem == gone.fileSystem && !isReachable[file.slot] && remains(file.shares) {
            isReachable[file.slot] = true
            nodes.forgetLocation(file.slot)
            nodes.slots[file.slot].formerShares = file.shares
        }
        let slots = nodes.slots.indices.filter { slot in
            let node = nodes.slots[slot]
            return node.inUse && node.fileSystem == gone.fileSystem && !node.isSynthetic && !node.isStale
        }
        for slot in slots where !isReachable[slot] {
            if nodes.slots[slot].parent == 0, remains(nodes.slots[slot].formerShares) { isReachable[slot] = true }
        }
        let closed = handles.removeAll { file in
            let node = nodes.slots[file.slot]
            guard node.fileSystem == gone.fileSystem else { return false }
            return !isReachable[file.slot] || (file.isWritable && !isWritable(file.slot))
        }
        for slot in closed { nodes.removeHandle(slot) }
        for slot in slots where nodes.slots[slot].inUse {
            if !isReachable[slot] {
                nodes.invalidate(slot)
            } else if nodes.slots[slot].descriptorShare == gone.id, nodes.slots[slot].isListed {
                nodes.closeDescriptor(slot)
            }
        }
        for slot in slots { nodes.release(slot) }
    }

    /// The share's path below the root, by which it was added.
    func name(of share: Share) -> String {
        "\(fileSystems.first { $0.id == share.fileSystem }?.name ?? "")/\(share.name)"
    }

    func share(_ id: Int32) -> Share? { id < 0 ? nil : shares.first { $0.id == id } }

    /// Whether some writable share leads to a node.
    func isWritable(_ slot: Int) -> Bool {
        if nodes.writableRoot(above: slot) != nil { return true }
        let former = nodes.shares(above: slot)
        return share(former.nearest)?.readOnly == false || share(former.outermost)?.readOnly == false
    }

    // MARK: The synthetic directories

    /// What the guest's stat(2) shows of the root: no file system's own number, as some of these are seen beside it.
    static let rootInode: UInt64 = 1 << 63 | 1

    /// What is in the root, or in the directory of a file system.
    func syntheticEntries(_ slot: Int) -> [(id: Int32, name: String, slot: Int)] {
        if slot == NodeTable.root { return fileSystems.map { ($0.id, $0.name, $0.slot) } }
        let id = nodes.slots[slot].fileSystem
        return shares.filter { $0.fileSystem == id }.map { ($0.id, $0.name, $0.slot) }
    }

    func syntheticAttributes(_ slot: Int) -> fuse_attr {
        var result = fuse_attr()
        result.ino = Self.rootInode
        result.mode = S_IFDIR | 0o555
        result.nlink = 2
        result.blksize = 4096
        if let fileSystem = fileSystems.first(where: { $0.slot == slot }) {
            result.ino += UInt64(fileSystem.id)
            result.flags = submounts && !fileSystem.isHome ? FuseFlag.attributeSubmount : 0
        }
        return result
    }

    /// The answer of LOOKUP in a synthetic directory; counts one lookup.
    func syntheticEntry(_ directory: Int, _ name: UnsafePointer<CChar>) throws(FileError) -> fuse_entry_out {
        guard let found = syntheticEntries(directory).first(where: { strcmp($0.name, name) == 0 }) else {
            throw .missing
        }
        return try syntheticEntry(found)
    }

    /// The guest asks again each time: a share that is taken away and comes back at once has the same name and is another node.
    func syntheticEntry(_ found: (id: Int32, name: String, slot: Int)) throws(FileError) -> fuse_entry_out {
        var result: fuse_entry_out
        if nodes.slots[found.slot].isSynthetic {
            nodes.addLookup(found.slot)
            result = entry(found.slot, syntheticAttributes(found.slot))
        } else {
            result = entry(found.slot, try FileStatus(of: nodes.slots[found.slot].rootDescriptor))
        }
        result.entry_valid = 0
        return result
    }
}

func isFileName(_ name: String) -> Bool {
    name.utf8.count <= FuseLimits.nameLength && !name.utf8.contains(0) && name.withCString(isEntryName)
}
