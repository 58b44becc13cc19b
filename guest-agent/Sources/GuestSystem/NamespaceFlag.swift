/// The flags of clone(2), unshare(2) and setns(2) for namespaces (linux/sched.h).
public enum NamespaceFlag {
    public static let time: Int32 = 0x0000_0080
    public static let mount: Int32 = 0x0002_0000
    public static let cgroup: Int32 = 0x0200_0000
    public static let uts: Int32 = 0x0400_0000
    public static let ipc: Int32 = 0x0800_0000
    public static let user: Int32 = 0x1000_0000
    public static let pid: Int32 = 0x2000_0000
    public static let network: Int32 = 0x4000_0000
}
