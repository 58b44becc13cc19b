import CLinux
import Glibc
import LinuxSystem

/// A user of the host for the processes of one pod: no other pod of this host runs as it, as long as the value lives.
///
/// What keeps it is a lock on one byte of a file (F_OFD_SETLK, fcntl(2)): the kernel gives it back when the pod's server ends,
/// however it ends.
public final class PodUser: Sendable {
    /// User and group.
    package let id: UInt32
    private let lock: SharedDescriptor

    private init(id: UInt32, lock: SharedDescriptor) { (self.id, self.lock) = (id, lock) }

    /// The file of which each user has a byte: for all pods of the host, whatever their roots are. Whoever may not write there, in a
    /// user namespace, has one in the root.
    ///
    /// - Parameter root: holds the states of pods.
    package static func file(root: String) -> String {
        access("/run", W_OK) == 0 ? "/run/martlet.users" : "\(root)/.users"
    }

    /// Whether all pods have the same user, because there is no other in this process's user namespace.
    public static func isShared(_ jail: Configuration.Jail) -> Bool {
        isSingle(IDMap.ofUsers().choose(wanted(jail)), jail)
    }

    private static func isSingle(_ ids: Range<UInt64>, _ jail: Configuration.Jail) -> Bool {
        ids.count == 1 && ids != wanted(jail)
    }

    private static func wanted(_ jail: Configuration.Jail) -> Range<UInt64> {
        UInt64(jail.firstUser)..<UInt64(jail.firstUser + jail.users)
    }

    /// Takes a user that no other pod has. In a user namespace with a single id that is the user of all pods.
    ///
    /// - Parameters:
    ///   - file: see `file(root:)`.
    ///   - map: of this process's user namespace.
    /// - Throws: `SandboxError.failed` where all of them are taken.
    package static func take(_ jail: Configuration.Jail, file: String, map: IDMap = .ofUsers()) throws -> PodUser {
        let lock = SharedDescriptor(try OwnedDescriptor.open(file, O_RDWR | O_CREAT, mode: 0o600))
        let ids = map.choose(wanted(jail))
        // Somewhere in the range, so that the first try is good as a rule.
        let start = UInt64.random(in: 0..<UInt64(ids.count))
        for offset in 0..<UInt64(ids.count) {
            let id = ids.lowerBound + (start + offset) % UInt64(ids.count)
            if martlet_lock_byte(lock.raw, id) == 0 || isSingle(ids, jail) {
                return PodUser(id: UInt32(id), lock: lock)
            }
            guard errno == EAGAIN || errno == EACCES else { throw SystemError.last("lock", file) }
        }
        throw SandboxError.failed("all \(ids.count) users of jail.first_user and jail.users are taken by other pods")
    }
}
