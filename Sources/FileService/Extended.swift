import CLinux
import Glibc

/// GETXATTR, SETXATTR, LISTXATTR, REMOVEXATTR: extended attributes.
///
/// Served: `user.*`, `security.capability`, POSIX ACLs, and `trusted.overlay.*`, with which overlayfs in the guest marks
/// the files of its upper layer. The host lets only CAP_SYS_ADMIN set those, and its own overlayfs would act on them, so
/// they are stored under `OverlayAttribute.prefix`. Of other attributes the guest sees nothing: they mean something to the
/// host.
extension FileServer {
    private static let longestValue = 64 << 10

    /// The name on the host of an attribute that the guest calls `name`; nil if it is not served. Valid until the next call.
    private func hostName(_ name: UnsafePointer<CChar>) -> UnsafePointer<CChar>? {
        if strncmp(name, OverlayAttribute.guestPrefix, OverlayAttribute.guestPrefix.utf8.count) == 0 {
            let start = OverlayAttribute.prefix.utf8.count
            guard start + strlen(name) < attributeName.count, let base = attributeName.baseAddress else { return nil }
            strcpy(base, OverlayAttribute.prefix)
            strcpy(base + start, name)
            return UnsafePointer(base)
        }
        return isServed(name) ? name : nil
    }

    /// Whether the guest has the attribute under the name that it has on the host.
    private func isServed(_ name: UnsafePointer<CChar>) -> Bool {
        if strncmp(name, "user.", 5) == 0 { return !OverlayAttribute.isHidden(name) }
        return strcmp(name, "security.capability") == 0 || strcmp(name, "system.posix_acl_access") == 0
            || strcmp(name, "system.posix_acl_default") == 0
    }

    private func refusal(_ name: UnsafePointer<CChar>) -> FileError {
        strncmp(name, "trusted.", 8) == 0 || strncmp(name, "user.", 5) == 0 ? .notPermitted : .unsupported
    }

    /// Calls `body` with a descriptor of the node that is open in fact, as xattr calls need. Special files and
    /// symbolic links can't have one and have no attributes here.
    ///
    /// - Parameter otherwise: thrown for these. To set one of theirs is EPERM, as the host answers for `user.*`: overlayfs
    ///   goes on after that, but takes EOPNOTSUPP to mean that the whole layer has no attributes.
    private func withFile<R>(
        _ slot: Int, writes: Bool = false, otherwise: FileError, _ body: (Int32) -> R
    ) throws(FileError) -> R {
        let type = nodes.slots[slot].identity.type
        guard type == S_IFREG || type == S_IFDIR else { throw otherwise }
        // A guest asks for security.capability with each write(2), of a file that it has open.
        let known = nodes.slots[slot]
        if !writes, known.handles > 0,
            let file = handles.find(known.lastHandle, node: nodes.number(slot), directory: type == S_IFDIR)
        {
            return body(file.descriptor)
        }
        let file = try openForIO(slot, O_RDONLY | (type == S_IFDIR ? O_DIRECTORY : 0), writes: writes)
        defer { close(file) }
        return body(file)
    }

    func getExtended(_ request: FuseRequest) throws(FileError) -> Int {
        let slot = try slot(request.header.nodeid)
        let input = try request.fixed(fuse_getxattr_in.self)
        let (name, end) = try request.string(at: MemoryLayout<fuse_getxattr_in>.size, longest: 255)
        guard end == request.arguments.count, name[0] != 0 else { throw .invalid }
        guard let hostName = hostName(name), !nodes.slots[slot].isSynthetic else { throw FileError(ENODATA) }
        let size = min(Int(input.size), Self.longestValue)
        let buffer = answer.baseAddress
        let (count, code) = try withFile(slot, otherwise: FileError(ENODATA)) { file in
            (martlet_fgetxattr(file, hostName, buffer, size), errno)
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
        guard !nodes.slots[slot].isSynthetic, type == S_IFREG || type == S_IFDIR, let base = answer.baseAddress else {
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
            var start = next
            next += length
            guard next <= count else { break }
            if OverlayAttribute.isStored(names + start) {
                start += OverlayAttribute.prefix.utf8.count
            } else if !isServed(names + start) {
                continue
            }
            memmove(names + kept, names + start, next - start)
            kept += next - start
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
        guard let hostName = hostName(name) else { throw refusal(name) }
        let value = request.arguments.baseAddress.map { $0 + valueStart }
        let error = try withFile(slot, writes: true, otherwise: .notPermitted) { file in
            martlet_fsetxattr(file, hostName, value, Int(input.size), Int32(truncatingIfNeeded: input.flags)) < 0
                ? FileError.last : nil
        }
        if let error { throw error }
        if setxattrExtended, input.setxattr_flags & FuseFlag.setxattrKillGroup != 0 { try clearSetGroup(slot) }
        return 0
    }

    /// The setter of an ACL who is not of the file's group loses SGID, as chmod(2) does it.
    private func clearSetGroup(_ slot: Int) throws(FileError) {
        let path = try writableDescriptor(slot)
        let mode = try FileStatus(of: path).mode & 0o7777
        guard mode & S_ISGID != 0 else { return }
        if fchmodat(proc.raw, procPath(path), mode_t(mode & ~S_ISGID), 0) < 0 { throw .last }
    }

    func removeExtended(_ request: FuseRequest) throws(FileError) -> Int {
        let slot = try writableSlot(request.header.nodeid)
        let (name, end) = try request.string(at: 0, longest: 255)
        guard end == request.arguments.count, name[0] != 0 else { throw .invalid }
        guard let hostName = hostName(name) else { throw refusal(name) }
        let error = try withFile(slot, writes: true, otherwise: .notPermitted) { file in
            martlet_fremovexattr(file, hostName) < 0 ? FileError.last : nil
        }
        if let error { throw error }
        return 0
    }
}

/// Where the attributes of the guest's overlayfs are stored.
enum OverlayAttribute {
    static let guestPrefix = "trusted.overlay."
    /// Put before the guest's name. The guest can neither see nor set an attribute whose name begins so.
    static let prefix = "user.martlet."

    static func isHidden(_ name: UnsafePointer<CChar>) -> Bool { strncmp(name, prefix, prefix.utf8.count) == 0 }

    /// Whether the host's name is that of an attribute of the guest's overlayfs.
    static func isStored(_ name: UnsafePointer<CChar>) -> Bool {
        let length = prefix.utf8.count
        return isHidden(name) && strncmp(name + length, guestPrefix, guestPrefix.utf8.count) == 0
    }
}
