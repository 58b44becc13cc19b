import CLinux
import Glibc

/// GETATTR, SETATTR, ACCESS, STATFS, READLINK, SYNCFS: what belongs to a file and is not its data.
extension FileServer {
    func getAttributes(_ request: FuseRequest) throws(FileError) -> Int {
        let slot = try slot(request.header.nodeid)
        let input = try request.fixed(fuse_getattr_in.self)
        if nodes.slots[slot].isSynthetic { return putAttributes(syntheticAttributes(slot)) }
        if input.getattr_flags & FuseFlag.getattrHandle != 0,
            let file = handles.find(input.fh, node: request.header.nodeid, directory: false)
        {
            return putAttributes(attributes(slot, try FileStatus(of: file.descriptor)))
        }
        return putAttributes(attributes(slot, try status(slot)))
    }

    private func putAttributes(_ attributes: fuse_attr) -> Int {
        var out = fuse_attr_out()
        out.attr_valid = FuseLimits.validity
        out.attr = attributes
        return put(out)
    }

    func setAttributes(_ request: FuseRequest) throws(FileError) -> Int {
        let slot = try writableSlot(request.header.nodeid)
        let input = try request.fixed(fuse_setattr_in.self)
        let valid = AttributeSet(rawValue: input.valid)
        let path = try writableDescriptor(slot)
        let type = nodes.slots[slot].identity.type
        if valid.contains(.mode) {
            guard type != S_IFLNK else { throw .unsupported }
            if fchmodat(proc.raw, procPath(path), mode_t(input.mode & 0o7777), 0) < 0 { throw .last }
        }
        if !valid.isDisjoint(with: [.user, .group]) {
            // The kernel clears SUID, SGID and capabilities of a file whose owner changes.
            let user = valid.contains(.user) ? input.uid : UInt32.max
            let group = valid.contains(.group) ? input.gid : UInt32.max
            if fchownat(path, "", user, group, martlet_AT_EMPTY_PATH) < 0 { throw .last }
        }
        if valid.contains(.size) { try setSize(slot, request, input, valid) }
        if !valid.isDisjoint(with: [.accessTime, .modifyTime]) { try setTimes(path, input, valid) }
        return putAttributes(attributes(slot, try FileStatus(of: path)))
    }

    private func setSize(
        _ slot: Int, _ request: FuseRequest, _ input: fuse_setattr_in, _ valid: AttributeSet
    ) throws(FileError) {
        guard nodes.slots[slot].identity.type == S_IFREG, let size = Int(exactly: input.size) else { throw .invalid }
        let killing = valid.contains(.killPrivileges)
        if valid.contains(.handle) {
            guard let file = handles.find(input.fh, node: request.header.nodeid, directory: false), file.isWritable
            else { throw .badHandle }
            try clearingPrivileges(killing) { ftruncate(file.descriptor, size) }
            return
        }
        let file = try openForIO(slot, O_WRONLY)
        defer { close(file) }
        try clearingPrivileges(killing) { ftruncate(file, size) }
    }

    private func setTimes(_ path: Int32, _ input: fuse_setattr_in, _ valid: AttributeSet) throws(FileError) {
        let now = (1 << 30) - 1  // UTIME_NOW
        let omit = (1 << 30) - 2  // UTIME_OMIT
        func time(_ set: AttributeSet, _ setNow: AttributeSet, _ seconds: UInt64, _ nanoseconds: UInt32) -> timespec {
            if !valid.contains(set) { return timespec(tv_sec: 0, tv_nsec: omit) }
            if valid.contains(setNow) { return timespec(tv_sec: 0, tv_nsec: now) }
            return timespec(tv_sec: Int(bitPattern: UInt(seconds)), tv_nsec: Int(min(nanoseconds, 999_999_999)))
        }
        let times = [
            time(.accessTime, .accessTimeNow, input.atime, input.atimensec),
            time(.modifyTime, .modifyTimeNow, input.mtime, input.mtimensec),
        ]
        // Through procfs it is the file itself also where that is a symbolic link.
        if utimensat(proc.raw, procPath(path), times, 0) < 0 { throw .last }
    }

    /// The guest's kernel checks permissions itself (default_permissions) and seldom asks.
    func access(_ request: FuseRequest) throws(FileError) -> Int {
        let slot = try slot(request.header.nodeid)
        let input = try request.fixed(fuse_access_in.self)
        if nodes.slots[slot].isSynthetic {
            if input.mask & UInt32(W_OK) != 0 { throw .readOnly }
            return 0
        }
        if input.mask & UInt32(W_OK) != 0 { _ = try writableSlot(request.header.nodeid) }
        let status = try status(slot)
        let user = request.header.uid
        if user == 0 {
            let runs = status.isDirectory || status.mode & 0o111 != 0
            if input.mask & UInt32(X_OK) != 0, !runs { throw FileError(EACCES) }
            return 0
        }
        let shift: UInt32 = user == status.raw.stx_uid ? 6 : request.header.gid == status.raw.stx_gid ? 3 : 0
        if input.mask & 7 & ~(status.mode >> shift) != 0 { throw FileError(EACCES) }
        return 0
    }

    func fileSystemStatus(_ request: FuseRequest) throws(FileError) -> Int {
        let slot = try slot(request.header.nodeid)
        var out = fuse_statfs_out()
        if slot == NodeTable.root {
            out.st.bsize = 4096
            out.st.frsize = 4096
            out.st.namelen = UInt32(FuseLimits.nameLength)
            return put(out)
        }
        var host = Glibc.statvfs()
        // The directory of a file system stands for it.
        let file = nodes.slots[slot].isSynthetic ? syntheticEntries(slot).first?.slot ?? slot : slot
        if fstatvfs(try descriptor(file), &host) < 0 { throw .last }
        out.st.blocks = UInt64(host.f_blocks)
        out.st.bfree = UInt64(host.f_bfree)
        out.st.bavail = UInt64(host.f_bavail)
        out.st.files = UInt64(host.f_files)
        out.st.ffree = UInt64(host.f_ffree)
        out.st.bsize = UInt32(clamping: host.f_bsize)
        out.st.namelen = min(UInt32(clamping: host.f_namemax), UInt32(FuseLimits.nameLength))
        out.st.frsize = UInt32(clamping: host.f_frsize)
        return put(out)
    }

    func readLink(_ request: FuseRequest) throws(FileError) -> Int {
        let slot = try slot(request.header.nodeid)
        guard nodes.slots[slot].identity.type == S_IFLNK, let target = answer.baseAddress else { throw .invalid }
        let room = min(request.room, Int(PATH_MAX))
        let count = readlinkat(try descriptor(slot), "", target.assumingMemoryBound(to: CChar.self), room)
        if count < 0 { throw .last }
        return count
    }

    /// sync(2) in the guest, once for each superblock: the root's, which is the home's, and that of each submount.
    func syncFileSystem(_ request: FuseRequest) throws(FileError) -> Int {
        let slot = try slot(request.header.nodeid)
        guard nodes.slots[slot].isSynthetic else { return isWritable(slot) ? try syncFileSystem(of: slot) : 0 }
        let id = slot == NodeTable.root ? fileSystems.first { $0.isHome }?.id : nodes.slots[slot].fileSystem
        let share = shares.first {
            let type = nodes.slots[$0.slot].identity.type
            return $0.fileSystem == id && !$0.readOnly && (type == S_IFDIR || type == S_IFREG)
        }
        return try share.map { share throws(FileError) in try syncFileSystem(of: share.slot) } ?? 0
    }

    private func syncFileSystem(of slot: Int) throws(FileError) -> Int {
        let type = nodes.slots[slot].identity.type
        guard type == S_IFDIR || type == S_IFREG else { return 0 }
        let file = try openForIO(slot, O_RDONLY)
        defer { close(file) }
        if martlet_syncfs(file) < 0 { throw .last }
        return 0
    }
}
