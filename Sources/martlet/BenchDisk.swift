import ArgumentParser
import Bench
import Sandbox

struct BenchDisk: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "disk", abstract: "Compare the disk with QEMU's own virtio-blk, in turns.",
        discussion: """
            Boots the guest of `make guest-bench` with three disks, which are the same file: Martlet's, and QEMU's with \
            aio=io_uring and aio=threads, both with cache=none. The guest reads and writes each of them in turns, sequentially and \
            at random, with 1 and with 32 requests in progress, past its own page cache. With KVM (qemu.accel) Martlet's disk is \
            that of the same guest on the built-in VMM, which is booted in turns with QEMU's. Needs root.
            """)

    @OptionGroup var global: GlobalOptions
    @OptionGroup var bench: BenchOptions

    @Option(help: "Size of the file, MiB.")
    var sizeMib = 256

    @Option(help: "Milliseconds that one disk is measured in one round with one pattern.")
    var milliseconds = DiskWorkload().milliseconds

    @Option(help: "Where the file is on the host: on a file system that can do direct I/O.")
    var directory = "/var/tmp"

    @OptionGroup var guest: BenchGuestOptions

    @Option(help: "Seconds that the guest may take beyond its measurements.")
    var timeout = 120

    func validate() throws {
        guard (16...1 << 20).contains(sizeMib), (1...60_000).contains(milliseconds), timeout > 0 else {
            throw ValidationError("--size-mib must be 16 to 1048576, --milliseconds 1 to 60000, --timeout above 0")
        }
    }

    func run() async throws {
        let report = try await global.reporting { logger in
            let (driver, machine) = try Configuration.load(file: global.config)
                .benchMachine(guest, logger: logger)
            var disk = DiskBench(driver: driver, machine: machine)
            disk.workload.milliseconds = milliseconds
            disk.sizeMiB = sizeMib
            disk.directory = directory
            disk.timeout = .seconds(timeout)
            return try await disk.run(
                rounds: bench.runs, command: CommandLine.arguments.joined(separator: " "),
                progress: BenchOptions.progress)
        }
        try await global.reporting { _ in try bench.show(report) }
    }
}
