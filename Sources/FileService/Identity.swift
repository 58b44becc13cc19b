import CLinux
import Glibc

/// Doing things as the guest's user, and without the privilege to keep SUID and SGID.
extension FileServer {
    /// capability.h numbers of what creating needs though the guest's kernel has checked it already: permission in
    /// the directory (by a group of the guest's process that we aren't told), and device nodes.
    private static let keptWhileCreating: UInt64 = 1 << 1 | 1 << 27  // CAP_DAC_OVERRIDE, CAP_MKNOD
    private static let keepsSetID: UInt64 = 1 << 4  // CAP_FSETID

    /// Calls `body`, which creates something, as the user and group of the request, so that the host's kernel gives
    /// it the right owner, and SGID from the directory only to who may have it (CVE-2022-0358).
    func asCaller(_ header: fuse_in_header, _ body: () -> Int32) throws(FileError) -> Int32 {
        guard header.uid != UInt32.max, header.gid != UInt32.max else { throw FileError(EOVERFLOW) }
        let user = geteuid()
        let group = getegid()
        var result: Int32
        if header.uid == user, header.gid == group {
            result = body()
        } else {
            if martlet_assume_identity(header.uid, header.gid, Self.keptWhileCreating) < 0 { throw .last }
            result = body()
            let error = errno
            martlet_resume_identity(user, group)
            errno = error
        }
        if result < 0 { throw .last }
        return result
    }

    /// Calls `body`, which changes a file's data, so that the host's kernel clears SUID and SGID as it does for who
    /// lacks CAP_FSETID: the guest's process does (FUSE_HANDLE_KILLPRIV_V2).
    func droppingSetID<R>(_ body: () throws(FileError) -> R) throws(FileError) -> R {
        var before: UInt64 = 0
        if martlet_drop_effective(Self.keepsSetID, &before) < 0 { throw .last }
        defer {
            let error = errno
            martlet_set_effective(before)
            errno = error
        }
        return try body()
    }

    /// A system call, with SUID and SGID cleared by it if `killing`.
    @discardableResult
    func clearingPrivileges<R: SignedInteger>(_ killing: Bool, _ call: () -> R) throws(FileError) -> R {
        let result = killing ? try droppingSetID { () throws(FileError) in call() } : call()
        if result < 0 { throw .last }
        return result
    }
}
