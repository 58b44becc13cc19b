import CLinux
import Glibc
import LinuxSystem

/// A terminal of the person who runs the command: raw while a container has it, as it was afterwards.
final class Terminal: Sendable {
    private let descriptor: Int32
    private let saved: termios

    /// nil when `descriptor` is not a terminal.
    init?(_ descriptor: Int32) {
        var settings = termios()
        guard tcgetattr(descriptor, &settings) == 0 else { return nil }
        self.descriptor = descriptor
        saved = settings
    }

    func makeRaw() {
        var settings = saved
        cfmakeraw(&settings)
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
