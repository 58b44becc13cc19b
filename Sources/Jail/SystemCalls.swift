import CLinux
import Glibc

/// The system calls of the kinds of threads.
extension SystemCallFilter {
    /// The filters of a kind of process. The first holds for all of its threads: it is that of the thread that starts the others,
    /// so it allows what each of them may do. The others are narrower, each for the threads that it names.
    static func filters(of kind: JailPlan.Kind) -> [SystemCallFilter] {
        switch kind {
        case .vsock: [SystemCallFilter("event loop", runtime + loop + streams + noFile)]
        case .files:
            [
                SystemCallFilter("control", runtime + loop + threads + files),
                SystemCallFilter("file worker", names: ["file system"], runtime + rounds + files),
            ]
        case .disk: [SystemCallFilter("control", runtime + loop + threads + disk + diskFacts + noFile), diskQueue]
        case .container: [SystemCallFilter("container", container)]
        case .vmm:
            [
                SystemCallFilter(
                    "control", runtime + loop + streams + threads + disk + diskFacts + machine + noFile),
                diskQueue, queue,
                SystemCallFilter("vcpu", names: ["vcpu"], runtime + calls("eventfd2 tgkill poll") + kvm + noFile),
            ]
        case .qemu: [emulator]
        }
    }

    /// A thread that serves a queue of a disk.
    private static let diskQueue = SystemCallFilter(
        "disk queue", names: ["disk"], runtime + rounds + disk + [ioctl(UInt(MARTLET_KVM_IRQ_LINE))] + noFile)

    /// A thread that serves the queues of a network interface, or passes on requests for files.
    private static let queue = SystemCallFilter(
        "queue", names: ["network", "file system"],
        runtime + rounds + calls("readv writev") + tap + [ioctl(UInt(MARTLET_KVM_IRQ_LINE))] + noFile)

    private init(_ thread: String, names: [String] = [], _ calls: [Call]) {
        (self.thread, self.names, self.calls) = (thread, names, calls)
    }

    // MARK: What the libraries need

    /// What Swift's and C's libraries need: memory that can't be executed, locks, time, random numbers, the end.
    private static let runtime =
        calls(
            """
            read write close newfstatat futex munmap madvise mremap brk rt_sigreturn rt_sigprocmask restart_syscall exit
            exit_group getrandom clock_gettime clock_nanosleep gettid getpid sched_getaffinity sched_yield
            """)
        + [Call("mmap", 2, mask: UInt64(PROT_EXEC), 0), Call("mprotect", 2, mask: UInt64(PROT_EXEC), 0)]
        + [PR_SET_NAME, PR_GET_NAME, nameMemory].map { Call("prctl", 0, UInt64($0)) }

    /// PR_SET_VMA (prctl(2)): the C library gives its memory names.
    private static let nameMemory: Int32 = 0x5356_4d41

    /// The C library looks for facts about the host's CPUs and goes on without them. There is no file to be opened anyway.
    private static let noFile = [Call(name: "openat", errno: ENOENT)]

    /// To start a thread, and to narrow what it may do.
    private static let threads =
        calls("rseq set_robust_list rt_sigaction seccomp") + [
            Call("clone", 0, mask: UInt64(CLONE_THREAD | CLONE_VM | namespaces), UInt64(CLONE_THREAD | CLONE_VM))
        ] + noClone3

    /// Its flags are in memory, where a filter can't see them: the C library takes clone(2) then.
    private static let noClone3 = [Call(name: "clone3", errno: ENOSYS)]

    private static let namespaces = JailPlan.Namespace.allCases.reduce(CLONE_NEWUSER) { $0 | $1.flag }

    // MARK: What the devices need

    /// The rounds of an event loop.
    private static let rounds = calls("epoll_create1 epoll_ctl epoll_wait poll eventfd2")

    /// An event loop, with sockets that carry messages and descriptors.
    private static let loop =
        rounds + calls("recvmsg sendmsg dup memfd_create")
        + [F_DUPFD_CLOEXEC, F_GETFL, F_SETFL, F_GETFD, F_SETFD, F_ADD_SEALS, F_GET_SEALS].map {
            Call("fcntl", 1, UInt64($0))
        }

    private static let streams = calls("recvfrom sendto readv writev shutdown")

    /// The rings are there before the filter is: none can be made, and these take reads, writes and flushes only.
    private static let disk =
        calls("preadv pwritev pread64 pwrite64 fdatasync fsync fallocate lseek io_uring_enter")
        + [ioctl(martlet_BLKDISCARD)]

    /// What a disk's files are.
    private static let diskFacts = calls("statx") + [martlet_BLKGETSIZE64, martlet_BLKSSZGET].map(ioctl)

    private static let tap = [martlet_TUNSETOFFLOAD, martlet_TUNSETQUEUE].map(ioctl)

    /// KVM's ioctls have the type 0xAE (linux/kvm.h).
    private static let kvm = [Call("ioctl", 1, mask: 0xff00, 0xae00)]

    private static let machine = kvm + tap + calls("tgkill timerfd_create timerfd_settime")

    private static let files = calls(
        """
        openat openat2 readlinkat statx fstatfs getdents64 mkdirat mknodat symlinkat linkat unlinkat renameat renameat2
        fchmodat fchownat utimensat ftruncate fallocate lseek pread64 pwrite64 preadv pwritev pwritev2 copy_file_range fsync
        fdatasync syncfs fgetxattr fsetxattr flistxattr fremovexattr umask capget capset setresuid setresgid geteuid getegid
        prlimit64
        """)

    private static let container =
        calls(
            """
            read write close poll recvmsg sendmsg munmap madvise brk futex rt_sigreturn rt_sigprocmask rt_sigaction
            restart_syscall exit_group getpid prlimit64
            """)
        + [Call("mmap", 2, mask: UInt64(PROT_EXEC), 0), ioctl(UInt(TIOCGWINSZ))]
        // It ends by a signal as the process in the guest does.
        + [Call("prctl", 0, UInt64(PR_GET_NAME)), Call("kill", 0, UInt64(getpid()))]

    /// QEMU has a filter of its own (-sandbox), whose calls are those of its version. This one takes away, beside that, what
    /// leads to other parts of the kernel, and all sockets but AF_UNIX's.
    private static let emulator: SystemCallFilter = {
        let denied = calls(
            """
            ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp perf_event_open bpf userfaultfd keyctl add_key
            request_key io_uring_setup io_uring_enter io_uring_register mount umount2 move_mount open_tree fsopen fsmount
            fsconfig fspick mount_setattr pivot_root chroot unshare setns open_by_handle_at name_to_handle_at init_module
            finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct quotactl personality syslog
            fanotify_init iopl ioperm lookup_dcookie migrate_pages move_pages
            """)
        let sockets = (UInt64(AF_UNIX) + 1..<UInt64(AF_MAX)).map { Call("socket", 0, $0) }
        let namespaces = JailPlan.Namespace.allCases.map(\.flag) + [CLONE_NEWUSER]
        let clones = namespaces.map { Call("clone", 0, mask: UInt64($0), UInt64($0)) }
        var filter = SystemCallFilter("all", (denied + sockets + clones).map { $0.failing(EPERM) } + noClone3)
        filter.isDenyList = true
        return filter
    }()

    private static func ioctl(_ request: UInt) -> Call { Call("ioctl", 1, UInt64(request)) }

    private static func calls(_ names: String) -> [Call] {
        names.split { $0 == " " || $0 == "\n" }.map { Call(name: String($0)) }
    }
}

extension SystemCallFilter.Call {
    /// The call with one value of an argument.
    fileprivate init(_ name: String, _ argument: UInt32, mask: UInt64 = .max, _ value: UInt64) {
        self.name = name
        conditions = [SystemCallFilter.Condition(argument: argument, mask: mask, value: value)]
    }

    fileprivate func failing(_ errno: Int32) -> Self {
        var call = self
        call.errno = errno
        return call
    }
}
