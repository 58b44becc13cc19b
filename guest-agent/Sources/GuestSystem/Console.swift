import Glibc

/// The guest's console, of which the host shows the last lines when the guest has died, and the kernel's log.
public enum Console {
    /// Writes a line. Never throws: there is nothing else to report to.
    public static func write(_ line: String) {
        put(line + "\n", to: 2)
        let log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC)
        guard log >= 0 else { return }
        // Level 6: below what `quiet` shows, so that the console has it once.
        put("<6>" + line + "\n", to: log)
        close(log)
    }

    /// Writes what went wrong, with the agent's name before it.
    public static func report(_ failure: String) { write("martlet-agent: \(failure)") }

    private static func put(_ text: String, to descriptor: Int32) {
        let bytes = Array(text.utf8)
        _ = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
    }
}
