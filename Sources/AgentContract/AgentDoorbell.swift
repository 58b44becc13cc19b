/// How the agent says that it listens: it writes one byte to an I/O port, which the built-in VMM reports to the host.
///
/// The kernel's command line names the port (`martlet.doorbell=0xb80`). Without that argument, as under QEMU or with another
/// host, the agent writes nothing, and the host connects until the agent answers.
public enum AgentDoorbell {
    /// The name of the kernel argument.
    public static let argument = "martlet.doorbell"
    /// The I/O port that the built-in VMM answers. No device of a PC lies there.
    public static let port: UInt16 = 0x0b80
    /// What the agent writes when it listens on all of its ports.
    public static let ready: UInt8 = 0x52
    /// The whole argument, as the built-in VMM's kernel command line has it.
    public static let kernelArgument = "\(argument)=0x\(String(port, radix: 16))"

    /// The port that a kernel command line names.
    ///
    /// - Parameter commandLine: as /proc/cmdline has it.
    /// - Returns: nil where the argument is absent or is no port; of several the last one counts, as for the kernel.
    public static func port(in commandLine: String) -> UInt16? {
        let prefix = argument + "="
        let arguments = commandLine.split { $0 == " " || $0 == "\n" }
        guard let value = arguments.last(where: { $0.hasPrefix(prefix) })?.dropFirst(prefix.count) else { return nil }
        return value.hasPrefix("0x") ? UInt16(value.dropFirst(2), radix: 16) : UInt16(value)
    }
}

/// What the agent writes to the guest's console. It is for diagnosis: the host decides nothing by it.
public enum AgentConsole {
    /// The line that follows the doorbell.
    public static let readyLine = "martlet-agent ready"
}
