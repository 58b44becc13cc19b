import CLinux
import Glibc

/// GETXATTR, SETXATTR, LISTXATTR, REMOVEXATTR: extended attributes.
///
/// Served: `user.*`, `security.capability`, POSIX ACLs, and `trusted.*` where the server allows it. Of others the
/// guest sees nothing: they mean something to the host.
extension FileServer {
    private static let longestValue = 64 << 10

    private func isServed(_ name: UnsafePointer<CChar>) -> Bool {
        if strncmp(name, "user.", 5) == 0 { return true }
        if strcmp(name, "security.capability") == 0 || strcmp(name, "system.posix_acl_access") == 0
            || strcmp(name, "system.posix_acl_default") == 0
        {
            return true
        }
        return options.servesTrusted && strncmp(name, "trusted.", 8) == 0
    }

    private func refusal(_ name: UnsafePointer<CChar>) -> FileError {
        strncmp(name, "trusted.", 8) == 0 ? .notPermitted : .unsupported
    }

    /// Calls `body` with a descriptor of the node that is open in fact, as xattr calls need. Special files and
    /// symbolic links can't have one and have no attributes here.
    private func withFile<R>(_ slot: Int, otherwise: FileError, _ body: (Int32) -> R) throws(FileError) -> R {
        let type = nodes.slots[slot].identity.type
        guard type == S_IFREG || type == S_IFDIR else { throw otherwise }
        // A guest asks for security.capability with each write(2), of a file that it has open.
        let known = nodes.slots[slot]
        if known.handles > 0,
            let file = handles.find(known.lastHandle, node: nodes.number(slot), directory: type == S_IFDIR)
        {
            return body(file.descriptor)
        }
        let file = try openForIO(slot, O_RDONLY | (type == S_IFDIR ? O_DIRECTORY : 0))
        defer { close(file) }
        return body(file)
    }

    func getExtended(_ request: FuseRequest) throws(FileError) -> Int {
        let slot = try slot(request.header.nodeid)
        let input = try request.fixed(fuse_getxattr_in.self)
        let (name, end) = try request.string(at: MemoryLayout<fuse_getxattr_in>.size, longest: 255)
        guard end == request.arguments.count, name[0] != 0 else { throw .invalid }
        guard isServed(name), slot != NodeTable.root else { throw FileError(ENODATA) }
        let size = min(Int(input.size), Self.longestValue)
        let buffer = answer.baseAddress
        let (count, code) = try withFile(slot, otherwise: FileError(ENODATA)) { file in
            (martlet_fgetxattr(file, name, buffer, size), errno)
        }
        return try extendedAnswer(count, code, asked: Int(input.size), request)
    }

    /// A guest that asks with size 0 gets the size that it needs.
    private func extendedAnswer(_ count: Int, _ code: Int32, asked: Int, _ request: FuseRequest) throws(FileError)
        -> Int
    {
        if count < 0 { throw FileError(code) }
        if asked == 0 {
            var out = fuse_getxattr_out()
            out.size = UInt32(clamping: count)
            return put(out)
        }
        guard count <= min(asked, request.room) else { throw FileError(ERANGE) }
        return count
    }

    func listExtended(_ request: FuseRequest) throws(FileError) -> Int {
        let slot = try slot(request.header.nodeid)
        let input = try request.fixed(fuse_getxattr_in.self)
        let type = nodes.slots[slot].identity.type
        guard slot != NodeTable.root, type == S_IFREG || type == S_IFDIR, let base = answer.baseAddress else {
            return try extendedAnswer(0, 0, asked: Int(input.size), request)
        }
        let names = base.assumingMemoryBound(to: CChar.self)
        let (count, code) = try withFile(slot, otherwise: .unsupported) { file in
            (martlet_flistxattr(file, names, Self.longestValue), errno)
        }
        if count < 0 { throw FileError(code) }
        var kept = 0
        var next = 0
        while next < count {
            let length = strnlen(names + next, count - next) + 1
            if next + length <= count, isServed(names + next) {
                memmove(names + kept, names + next, length)
                kept += length
            }
            next += length
        }
        return try extendedAnswer(kept, 0, asked: Int(input.size), request)
    }

    func setExtended(_ request: FuseRequest) throws(FileError) -> Int {
        let slot = try writableSlot(request.header.nodeid)
        let input = try request.fixed(fuse_setxattr_in.self)
        // Without SETXATTR_EXT the structure ends after its first two fields.
        let start = setxattrExtended ? MemoryLayout<fuse_setxattr_in>.size : 8
        let (name, valueStart) = try request.string(at: start, longest: 255)
        guard name[0] != 0, request.arguments.count - valueStart == Int(input.size),
            Int(input.size) <= Self.longestValue
        else { throw .invalid }
        guard isServed(name) else { throw refusal(name) }
        let value = request.arguments.baseAddress.map { $0 + valueStart }
        let error = try withFile(slot, otherwise: .notPermitted) { file in
            martlet_fsetxattr(file, name, value, Int(input.size), Int32(truncatingIfNeeded: input.flags)) < 0
                ? FileError.last : nil
        }
        if let error { throw error }
        if setxattrExtended, input.setxattr_flags & FuseFlag.setxattrKillGroup != 0 { try clearSetGroup(slot) }
        return 0
    }

    /// The setter of an ACL who is not of the file's group loses SGID, as chmod(2) does it.
    private func clearSetGroup(_ slot: Int) throws(FileError) {
        let path = try descriptor(slot)
        let mode = try FileStatus(of: path).mode & 0o7777
        guard mode & S_ISGID != 0 else { return }
        if fchmodat(proc.raw, procPath(path), mode_t(mode & ~S_ISGID), 0) < 0 { throw .last }
    }

    func removeExtended(_ request: FuseRequest) throws(FileError) -> Int {
        let slot = try writableSlot(request.header.nodeid)
        let (name, end) = try request.string(at: 0, longest: 255)
        guard end == request.arguments.count, name[0] != 0 else { throw .invalid }
        guard isServed(name) else { throw refusal(name) }
        let error = try withFile(slot, otherwise: .notPermitted) { file in
            martlet_fremovexattr(file, name) < 0 ? FileError.last : nil
        }
        if let error { throw error }
        return 0
    }
}
