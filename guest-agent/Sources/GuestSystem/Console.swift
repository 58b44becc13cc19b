import Glibc

/// What the agent has to say: a line on the console, which is what the host shows when the guest has died, and in the
/// kernel's log.
public enum Console {
    /// Never throws: there is nobody left to tell.
    public static func say(_ line: String) {
        put(line + "\n", to: 2)
        let log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC)
        guard log >= 0 else { return }
        // Level 6: below what `quiet` shows, so that the console has it once.
        put("<6>" + line + "\n", to: log)
        close(log)
    }

    private static func put(_ text: String, to descriptor: Int32) {
        let bytes = Array(text.utf8)
        _ = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
    }
}
