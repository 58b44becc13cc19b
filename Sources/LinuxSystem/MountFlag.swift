/// The flags of mount(2) (linux/mount.h), which several C headers define in different ways.
public enum MountFlag {
    public static let readOnly: UInt = 1
    public static let noSetID: UInt = 2
    public static let noDevices: UInt = 4
    public static let noExecution: UInt = 8
    public static let synchronous: UInt = 16
    public static let remount: UInt = 32
    public static let mandatoryLocks: UInt = 64
    public static let synchronousDirectories: UInt = 128
    public static let noSymlinks: UInt = 256
    public static let noAccessTime: UInt = 1024
    public static let noDirectoryAccessTime: UInt = 2048
    public static let bind: UInt = 4096
    public static let move: UInt = 8192
    public static let recursive: UInt = 16384
    public static let silent: UInt = 1 << 15
    public static let accessLists: UInt = 1 << 16
    public static let unbindable: UInt = 1 << 17
    public static let isPrivate: UInt = 1 << 18
    public static let slave: UInt = 1 << 19
    public static let shared: UInt = 1 << 20
    public static let relativeAccessTime: UInt = 1 << 21
    public static let inodeVersion: UInt = 1 << 23
    public static let strictAccessTime: UInt = 1 << 24
    public static let lazyTime: UInt = 1 << 25
}
