import CLinux
import Glibc
import LinuxSystem
import Synchronization
import VMMControl

/// Where the program under test is.
enum DeviceProgram {
    static let executable: String = {
        let path = symbolicLink("/proc/self/exe") ?? ""
        // The test runner is beside what is tested, or is the toolchain's and got the bundle as an argument.
        let places = [path] + CommandLine.arguments
        let found = places.map { $0.split(separator: "/").dropLast().map { "/" + $0 }.joined() + "/martlet-device" }
        return found.first { access($0, X_OK) == 0 } ?? "martlet-device"
    }()

    static let isPossible: Bool = {
        let possible = geteuid() == 0 && access(executable, X_OK) == 0
        if !possible { print("martlet-device is not tested: it needs root, and \(executable)") }
        return possible
    }()
}

/// A device process and its control client.
final class DeviceProcess: Sendable {
    let pid: pid_t
    let client: ControlClient

    init(_ arguments: [String], tracedTo trace: String? = nil) throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        var arguments = [DeviceProgram.executable] + arguments
        if let trace { arguments = ["/usr/bin/strace", "-f", "-e", "trace=file,%desc", "-o", trace] + arguments }
        var pointers: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        defer { for pointer in pointers { free(pointer) } }
        var pid: pid_t = 0
        var pidfd: Int32 = -1
        var step: UnsafePointer<CChar>?
        var environment: [UnsafeMutablePointer<CChar>?] = [nil]
        let descriptors: [Int32] = [-1, 2, 2, theirs.raw]
        let error = descriptors.withUnsafeBufferPointer { numbers in
            pointers.withUnsafeMutableBufferPointer { arguments in
                environment.withUnsafeMutableBufferPointer { variables in
                    var options = martlet_spawn_options()
                    options.path = UnsafePointer(arguments[0])
                    options.argv = UnsafePointer(arguments.baseAddress)
                    options.envp = UnsafePointer(variables.baseAddress)
                    options.descriptors = numbers.baseAddress
                    options.descriptor_count = Int32(numbers.count)
                    options.new_pid_namespace = 1
                    return martlet_spawn(&options, &pid, &pidfd, &step)
                }
            }
        }
        guard error == 0 else { throw SystemError("spawn", arguments[0], errno: .init(rawValue: error)) }
        close(pidfd)
        self.pid = pid
        let sink = Sink()
        client = ControlClient(control: ours, onEvent: { sink.add($0) }, onClose: { sink.close() })
        self.sink = sink
    }

    let sink: Sink

    final class Sink: Sendable {
        private let list = Mutex<(events: [ControlEvent], isClosed: Bool)>(([], false))
        func add(_ event: ControlEvent) { list.withLock { $0.events.append(event) } }
        func close() { list.withLock { $0.isClosed = true } }

        /// Waits for an event.
        func wait(for event: ControlEvent) -> Bool { wait { $0.events.contains(event) } }
        /// Waits until the process has closed its control socket.
        func waitForClose() -> Bool { wait { $0.isClosed } }

        private func wait(_ condition: (borrowing (events: [ControlEvent], isClosed: Bool)) -> Bool) -> Bool {
            for _ in 0..<500 {
                if list.withLock({ condition($0) }) { return true }
                usleep(10_000)
            }
            return false
        }
    }

    func status(_ field: String) -> String? {
        let text = fileContents("/proc/\(pid)/status")
        let line = text.split(separator: "\n").first { $0.hasPrefix(field + ":") }
        return line.map { $0.dropFirst(field.count + 1).split(separator: "\t").joined(separator: " ") }
    }
}

/// What is in a file; nothing where it can't be opened.
func fileContents(_ path: String) -> String {
    guard let file = try? OwnedDescriptor.open(path, O_RDONLY) else { return "" }
    var text: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
        let count = read(file.raw, &buffer, buffer.count)
        if count <= 0 { return String(decoding: text, as: UTF8.self) }
        text += buffer.prefix(count)
    }
}
