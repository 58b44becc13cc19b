import CLinux
import Glibc

/// The privileges that a process keeps when it drops all others for good.
public struct Privileges: Sendable {
    /// Linux capabilities (capabilities(7)), one bit each.
    public struct Capabilities: OptionSet, Sendable {
        public let rawValue: UInt64
        public init(rawValue: UInt64) { self.rawValue = rawValue }
        private init(_ number: Int32) { rawValue = 1 << UInt64(number) }

        public static let changeOwner = Capabilities(CAP_CHOWN)
        public static let overrideAccess = Capabilities(CAP_DAC_OVERRIDE)
        public static let actAsOwner = Capabilities(CAP_FOWNER)
        public static let keepSetID = Capabilities(CAP_FSETID)
        public static let makeNodes = Capabilities(CAP_MKNOD)
        public static let setUser = Capabilities(CAP_SETUID)
        public static let setGroup = Capabilities(CAP_SETGID)
        public static let setFileCaps = Capabilities(CAP_SETFCAP)

        /// The capabilities that a file server for containers needs.
        public static let fileServer: Capabilities = [
            .changeOwner, .overrideAccess, .actAsOwner, .keepSetID, .makeNodes, .setUser, .setGroup,
            .setFileCaps,
        ]
    }

    public var capabilities: Capabilities
    public var user: uid_t
    public var group: gid_t

    public init(capabilities: Capabilities, user: uid_t, group: gid_t) {
        self.capabilities = capabilities
        self.user = user
        self.group = group
    }

    /// Changes the root to an empty directory, drops all other privileges for good, and makes the process end with its parent.
    ///
    /// - Parameter parent: nil: the process goes on when its parent ends.
    /// To be called before the process starts a thread, because credentials belong to a thread. Afterwards the process can't gain
    /// privileges by executing a program (no_new_privs, and a bounding set with only the kept capabilities).
    public func apply(parent: pid_t? = getppid()) throws(SystemError) {
        try Self.emptyRoot()
        for capability in 0..<64 where capabilities.rawValue & 1 << UInt64(capability) == 0 {
            if martlet_prctl(PR_CAPBSET_DROP, UInt(capability), 0, 0, 0) == 0 { continue }
            if errno == EINVAL { break }  // the kernel knows no more capabilities
            throw .last("prctl PR_CAPBSET_DROP", "\(capability)")
        }
        try check("prctl PR_CAP_AMBIENT", "", martlet_prctl(PR_CAP_AMBIENT, UInt(PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0))
        try check("setgroups", "", setgroups(0, nil))
        try check("setresgid", "\(group)", setresgid(group, group, group))
        // Keep the capabilities across the change of the user, so that capset can choose from them.
        try check("prctl PR_SET_KEEPCAPS", "", martlet_prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
        try check("setresuid", "\(user)", setresuid(user, user, user))
        try check("capset", "", martlet_capset(capabilities.rawValue, capabilities.rawValue))
        try check("prctl PR_SET_KEEPCAPS", "", martlet_prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0))
        try check("prctl PR_SET_NO_NEW_PRIVS", "", martlet_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        if let parent { try Self.dieWithParent(parent) }
    }

    /// Makes the kernel send SIGKILL to this process when the thread that started it ends. A change of credentials clears this
    /// setting.
    public static func dieWithParent(_ parent: pid_t) throws(SystemError) {
        try check("prctl PR_SET_PDEATHSIG", "", martlet_prctl(PR_SET_PDEATHSIG, UInt(SIGKILL), 0, 0, 0))
        // The parent may have ended before the call.
        if getppid() != parent {
            throw SystemError("prctl PR_SET_PDEATHSIG", "parent \(parent)", errno: .noSuchProcess)
        }
    }

    private static func emptyRoot() throws(SystemError) {
        let directory = OwnedDescriptor(owning: try check("mount empty tmpfs", "", martlet_empty_directory()))
        try check("fchdir", "empty root", fchdir(directory.raw))
        try check("chroot", "empty root", chroot("."))
    }

    /// Raises the soft limit of open files to the hard limit.
    ///
    /// - Returns: the limit.
    @discardableResult
    public static func raiseOpenFiles() throws(SystemError) -> UInt64 {
        var limit = rlimit()
        try check("getrlimit", "RLIMIT_NOFILE", getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit))
        limit.rlim_cur = limit.rlim_max
        try check("setrlimit", "RLIMIT_NOFILE", setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit))
        return UInt64(limit.rlim_cur)
    }
}
