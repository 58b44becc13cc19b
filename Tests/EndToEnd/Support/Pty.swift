import CLinux
import Glibc
import LinuxSystem

/// A pseudo-terminal of the host, as a person's terminal would be.
struct Pty {
    let master: SharedDescriptor
    let slave: SharedDescriptor

    init(rows: UInt16, columns: UInt16) throws {
        master = SharedDescriptor(try OwnedDescriptor.open("/dev/ptmx", O_RDWR | O_NOCTTY))
        var locked: Int32 = 0
        // asm-generic/ioctls.h: TIOCSPTLCK, TIOCGPTPEER.
        try check("TIOCSPTLCK", "", martlet_ioctl_pointer(master.raw, 0x4004_5431, &locked))
        let peer = try check(
            "TIOCGPTPEER", "", martlet_ioctl_int(master.raw, 0x5441, Int(O_RDWR | O_NOCTTY | O_CLOEXEC)))
        slave = SharedDescriptor(OwnedDescriptor(owning: peer))
        try resize(rows: rows, columns: columns)
    }

    /// Tells the foreground process group too, with SIGWINCH.
    func resize(rows: UInt16, columns: UInt16) throws {
        var size = winsize(ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0)
        try check("TIOCSWINSZ", "", martlet_ioctl_pointer(master.raw, UInt(TIOCSWINSZ), &size))
    }

    /// Whether the line discipline echoes and gathers lines, as it does unless a program made it raw.
    var isCooked: Bool {
        var settings = termios()
        return tcgetattr(slave.raw, &settings) == 0
            && settings.c_lflag & tcflag_t(ICANON | ECHO) == tcflag_t(ICANON | ECHO)
    }

    /// The terminal that arrives at a console socket, as engines get it.
    static func receive(listener: Int32) throws -> SharedDescriptor {
        var waiting = pollfd(fd: listener, events: Int16(POLLIN), revents: 0)
        guard poll(&waiting, 1, Int32(60_000 * Lab.patience)) == 1 else {
            throw LabError("nobody came to the console socket")
        }
        let connection = OwnedDescriptor(owning: try check("accept", "", accept(listener, nil, nil)))
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 1)
        defer { buffer.deallocate() }
        guard let master = try connection.receive(into: buffer).descriptors.first else {
            throw LabError("no descriptor came over the console socket")
        }
        return master
    }
}
