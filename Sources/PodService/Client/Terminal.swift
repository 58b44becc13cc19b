import CLinux
import Glibc
import LinuxSystem

/// A terminal of the person who runs the command: raw while a container has it, as it was afterwards.
final class Terminal: Sendable {
    private let descriptor: Int32
    private let saved: termios
    /// Where it was opened here.
    private let opened: SharedDescriptor?

    /// nil when `descriptor` is not a terminal.
    convenience init?(_ descriptor: Int32) { self.init(descriptor, opened: nil) }

    private init?(_ descriptor: Int32, opened: SharedDescriptor?) {
        var settings = termios()
        guard tcgetattr(descriptor, &settings) == 0 else { return nil }
        self.descriptor = descriptor
        self.opened = opened
        saved = settings
    }

    /// The first of the standard streams that is a terminal, or the controlling one, as with runc; nil: there is none.
    static func ofCaller() -> Terminal? {
        for stream in [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO] {
            if let terminal = Terminal(stream) { return terminal }
        }
        guard let opened = try? SharedDescriptor(OwnedDescriptor.open("/dev/tty", O_RDWR | O_NOCTTY)) else {
            return nil
        }
        return Terminal(opened.raw, opened: opened)
    }

    /// - Parameter makesNewLines: whether it goes on making new lines of line feeds, which the other side does not.
    func makeRaw(makesNewLines: Bool = false) {
        var settings = saved
        cfmakeraw(&settings)
        if makesNewLines { settings.c_oflag |= tcflag_t(OPOST) }
        tcsetattr(descriptor, TCSANOW, &settings)
    }

    func restore() {
        var settings = saved
        tcsetattr(descriptor, TCSADRAIN, &settings)
    }

    /// In characters; nil when the terminal does not say.
    var size: (width: UInt32, height: UInt32)? { Terminal.size(of: descriptor) }

    static func size(of descriptor: Int32) -> (width: UInt32, height: UInt32)? {
        var size = winsize()
        guard martlet_ioctl_pointer(descriptor, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else {
            return nil
        }
        return (UInt32(size.ws_col), UInt32(size.ws_row))
    }

    /// Makes a pair of pseudo-terminals, raw: what is written to one end comes out of the other untouched.
    static func pair() throws -> (master: SharedDescriptor, slave: SharedDescriptor) {
        let master = try OwnedDescriptor.open("/dev/ptmx", O_RDWR | O_NOCTTY)
        var unlock: Int32 = 0
        try check("unlock", "/dev/ptmx", martlet_ioctl_pointer(master.raw, UInt(MARTLET_TIOCSPTLCK), &unlock))
        // TIOCGPTPEER opens the other end without looking for its name, in whatever mount namespace.
        let slave = try check(
            "open", "the pseudo-terminal's other end",
            martlet_ioctl_int(master.raw, UInt(MARTLET_TIOCGPTPEER), Int(O_RDWR | O_NOCTTY | O_CLOEXEC)))
        let pair = (SharedDescriptor(master), SharedDescriptor(OwnedDescriptor(owning: slave)))
        Terminal(slave)?.makeRaw()
        return pair
    }

    /// Hands a descriptor to the engine that listens on the Unix socket at `path`, as runc does (`--console-socket`).
    ///
    /// - Parameter name: what it is, which is sent along.
    static func send(_ descriptor: SharedDescriptor, name: String, to path: String) throws {
        let socket = try UnixAddress.connect(path)
        try withExtendedLifetime(descriptor) {
            try Array(name.utf8).withUnsafeBytes { try socket.send($0, descriptors: [descriptor.raw]) }
        }
    }
}
