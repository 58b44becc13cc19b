import Glibc
import Hypervisor
import LinuxSystem
import OCISpec

/// Starts `martlet` as a process that may outlive this one, with a value at its standard input.
///
/// - Parameter cgroup: the pod's, where the process must not stay.
func startOwnProcess(_ arguments: [String], input: some Encodable, outside cgroup: HostCgroup?) throws {
    let input = try memory(of: input)
    let process = try withExtendedLifetime(input) {
        try ChildProcess(
            "martlet \(arguments[0])",
            .init(
                executable: try Programs.own("martlet"), arguments: arguments,
                environment: GuestImage.guestEnvironment(),
                descriptors: [input.raw, -1, -1], newSession: true, isReaped: false))
    }
    try cgroup?.expel(process.pid)
}

/// A file in memory with a value, open at its beginning.
func memory(of value: some Encodable) throws -> SharedDescriptor {
    let file = try OwnedDescriptor.memory("input", size: 0)
    try writeAll(JSON.encode(value), to: file.raw, "input")
    return SharedDescriptor(file)
}

/// Reads the value that `startOwnProcess` has passed.
func readStandardInput<Value: Decodable>() throws -> Value {
    let text = try readText(STDIN_FILENO, "standard input")
    return try JSON.decode(Value.self, from: Array(text.utf8), file: "standard input")
}
