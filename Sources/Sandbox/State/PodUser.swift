import CLinux
import Glibc
import LinuxSystem

/// A user of the host for the processes of one pod: no other pod of this host runs as it, as long as the value lives.
///
/// What keeps it is a lock on one byte of a file (F_OFD_SETLK, fcntl(2)): the kernel gives it back when the pod's server ends,
/// however it ends.
package final class PodUser: Sendable {
    /// User and group.
    package let id: UInt32
    private let lock: SharedDescriptor

    private init(id: UInt32, lock: SharedDescriptor) { (self.id, self.lock) = (id, lock) }

    /// The file of which each user has a byte, for all pods of the host whatever their roots are.
    package static let file = "/run/martlet.users"

    /// Takes a user that no other pod has.
    ///
    /// - Throws: `SandboxError.failed` where all of them are taken.
    package static func take(_ jail: Configuration.Jail, file: String = PodUser.file) throws -> PodUser {
        let lock = SharedDescriptor(try OwnedDescriptor.open(file, O_RDWR | O_CREAT, mode: 0o600))
        // Somewhere in the range, so that the first try is good as a rule.
        let start = UInt64.random(in: 0..<UInt64(jail.users))
        for offset in 0..<UInt64(jail.users) {
            let index = (start + offset) % UInt64(jail.users)
            let id = UInt64(jail.firstUser) + index
            if martlet_lock_byte(lock.raw, id) == 0 { return PodUser(id: UInt32(id), lock: lock) }
            guard errno == EAGAIN || errno == EACCES else { throw SystemError.last("lock", file) }
        }
        throw SandboxError.failed("all \(jail.users) users of jail.first_user and jail.users are taken by other pods")
    }
}
