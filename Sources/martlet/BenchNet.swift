import ArgumentParser
import Bench
import FoundationEssentials
import Glibc
import Hypervisor
import LinuxSystem
import OCISpec
import Sandbox

struct BenchNet: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "net",
        abstract:
            "Compare the built-in VMM's network interface with QEMU's, by iperf3 between the host and a container.",
        discussion: """
            Starts a pod on the built-in VMM and one on QEMU with KVM, each with an interface at one end of a veth, and sends \
            TCP from the other end and back, in turns. Both have the same guest, a queue pair for each vCPU, the same offloads \
            and MTU. QEMU moves the frames itself (vhost=off). If /dev/vhost-net opens, a third pod has the kernel move them. \
            Needs root and iperf3.
            """)

    @OptionGroup var global: GlobalOptions
    @OptionGroup var bench: BenchOptions

    @Option(help: "Seconds that each direction is measured.")
    var seconds = 5

    @Option(help: "MTU of the interfaces, bytes.")
    var mtu: UInt32 = 1500

    @Option(help: "The program that sends and receives, on the host and in the container.")
    var iperf3 = "/usr/bin/iperf3"

    func validate() throws {
        guard (1...3600).contains(seconds), (68...65535).contains(mtu) else {
            throw ValidationError("--seconds must be 1 to 3600, --mtu 68 to 65535")
        }
    }

    func run() async throws {
        let report = try await global.reporting { logger in
            guard access(iperf3, X_OK) == 0 else {
                throw BenchError("iperf3 \(iperf3): not an executable file (Debian: apt install iperf3)")
            }
            let work = try BenchDirectory()
            defer { work.remove() }
            let configuration = try Configuration.load(file: global.config)
            let host = HostFacts.of(configuration)
            if let objection = host.kvmObjection { throw BenchError("both sides run on KVM, but \(objection)") }
            _ = try host.qemuPath()
            var net = NetBench(martlet: GuestImage.ownPath(), iperf3: iperf3)
            net.seconds = seconds
            net.mtu = mtu
            if let file = global.config { net.settings = try String(contentsOfFile: file, encoding: .utf8) }
            let hasVhost = access("/dev/vhost-net", R_OK | W_OK) == 0
            let program = iperf3
            let libraries = try libraries(of: program)
            return try await net.run(
                rounds: bench.runs, sides: NetSide.allCases.filter { $0 != .qemuWithVhost || hasVhost },
                command: CommandLine.arguments.joined(separator: " "),
                facts: [
                    .init("host", hostDescription()),
                    .init("machine", "\(configuration.vm.vcpus) vCPUs, \(configuration.vm.memoryMiB) MiB"),
                    .init("work", "iperf3, one stream of TCP, \(seconds) s each way, MTU \(mtu)"),
                ],
                directory: work.path,
                bundle: { try Self.bundle($0, in: work, program, libraries, namespace: $1) },
                progress: BenchOptions.progress
            )
        }
        try await global.reporting { _ in try bench.show(report) }
    }

    /// The absolute paths of a program's shared libraries and its loader.
    private func libraries(of program: String) throws -> [String] {
        let (child, output) = try ChildProcess.withPipe(
            "ldd", .init(executable: "/usr/bin/ldd", arguments: [program], descriptors: [-1, ChildProcess.pipe, 2]))
        _ = child.waitForEnd(timeout: .seconds(10))
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        let count = read(output.raw, &buffer, buffer.count)
        return String(decoding: buffer.prefix(max(0, count)), as: UTF8.self).split(whereSeparator: \.isWhitespace)
            .filter { $0.hasPrefix("/") }.map(String.init)
    }

    /// Creates a bundle with iperf3 and its libraries.
    private static func bundle(
        _ name: String, in work: BenchDirectory, _ program: String, _ libraries: [String], namespace: String
    ) throws -> String {
        try work.bundle(name, ["/bin/iperf3", "--server", "--forceflush"]) { spec in
            for index in spec.linux?.namespaces.indices ?? 0..<0
            where spec.linux?.namespaces[index].kind == .network {
                spec.linux?.namespaces[index].path = namespace
            }
            spec.mounts.append(Mount(destination: "/tmp", type: "tmpfs", source: "tmpfs"))
        } fill: { rootfs in
            for (source, target) in [(program, "/bin/iperf3")] + libraries.map({ ($0, $0) }) {
                let parent = "\(rootfs)\(target[..<(target.lastIndex(of: "/") ?? target.startIndex)])"
                try FileManager.default.createDirectory(atPath: parent, withIntermediateDirectories: true)
                // Follows symbolic links.
                try Data(contentsOf: URL(filePath: source)).write(to: URL(filePath: rootfs + target))
                try check("chmod", rootfs + target, chmod(rootfs + target, 0o755))
            }
        }
    }
}
