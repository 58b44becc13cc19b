import Glibc
import LinuxSystem

/// A process of a virtual machine, with what it prints.
final class MachineProcess: WatchedPart {
    let child: ChildProcess
    private let output: Console

    /// Starts a program whose standard output and error go to `log`, line by line.
    ///
    /// - Parameters:
    ///   - name: for messages.
    ///   - descriptors: what the program inherits, from number 3 on.
    init(
        _ name: String, executable: String, arguments: [String], environment: [String] = [],
        descriptors: [SharedDescriptor],
        log: @Sendable @escaping (String) -> Void
    ) throws {
        let output: SharedDescriptor
        (child, output) = try withExtendedLifetime(descriptors) {
            try ChildProcess.withPipe(
                name,
                .init(
                    executable: executable, arguments: arguments, environment: environment,
                    descriptors: [-1, ChildProcess.pipe, ChildProcess.pipe] + descriptors.map(\.raw), newSession: true,
                    diesWithParent: true, newPIDNamespace: true))
        }
        self.output = try Console("log \(name)", source: output) { log("\(name): \($0)") }
    }

    var name: String { child.name }

    func ended() async -> VMEnd { .processEnded(name: name, how: await child.end()) }

    func kill() { child.signal(SIGKILL) }

    /// What the process printed last; it has ended.
    func outputTail() -> String {
        output.waitForEnd(timeout: .seconds(1))
        return output.tail(3).joined(separator: "; ")
    }
}

extension [MachineProcess] {
    /// Ends the processes of a machine that could not be started.
    func abandon() {
        for process in self { process.kill() }
        for process in self { _ = process.child.waitForEnd(timeout: .seconds(5)) }
    }

    /// What process `name` printed last.
    func outputTail(of name: String) -> String { first { $0.name == name }?.outputTail() ?? "" }
}
