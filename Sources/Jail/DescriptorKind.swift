/// What a descriptor leads to, as /proc/PID/fd names it (proc(5)).
public enum DescriptorKind: String, Sendable, Codable, CaseIterable, Comparable {
    /// /dev/null.
    case null
    case pipe, socket
    case eventpoll, eventfd, timerfd, signalfd
    /// io_uring(7).
    case ring
    /// /dev/kvm, a virtual machine, a vCPU.
    case kvm
    case machine = "kvm-vm"
    case vcpu = "kvm-vcpu"
    /// A file of memory, such as the guest's.
    case memory
    /// A queue of a tap.
    case tap
    /// /dev/vhost-net.
    case vhostNet = "vhost-net"
    /// A file, a directory or a block device.
    case file
    case terminal
    case other

    public static func < (one: DescriptorKind, other: DescriptorKind) -> Bool { one.rawValue < other.rawValue }

    /// What the links begin with; the first that fits counts.
    private static let beginnings: [(String, DescriptorKind)] = [
        ("/dev/null", .null), ("pipe:", .pipe), ("socket:", .socket), ("anon_inode:[eventpoll]", .eventpoll),
        ("anon_inode:[eventfd]", .eventfd), ("anon_inode:[timerfd]", .timerfd), ("anon_inode:[signalfd]", .signalfd),
        ("anon_inode:[io_uring]", .ring), ("anon_inode:kvm-vm", .machine),
        ("anon_inode:kvm-vcpu", .vcpu), ("/dev/kvm", .kvm), ("/memfd:", .memory), ("/martlet-", .memory),
        ("/dev/net/tun", .tap), ("/dev/vhost-net", .vhostNet), ("/dev/pts/", .terminal), ("/dev/tty", .terminal),
        ("/dev/ptmx", .terminal), ("/", .file),
    ]

    /// - Parameter link: the target of a link in /proc/PID/fd.
    public init(link: String) { self = Self.beginnings.first { link.hasPrefix($0.0) }?.1 ?? .other }
}
