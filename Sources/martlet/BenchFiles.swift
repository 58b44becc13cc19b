import ArgumentParser
import Bench
import Sandbox

struct BenchFiles: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "files", abstract: "Compare the file device with Debian's virtiofsd, in one guest under QEMU.",
        discussion: """
            Boots the guest of `make guest-bench` twice in each round, once with each server. The guest reads and writes a large \
            file sequentially and at random, and creates and removes many small files. Needs root.
            """)

    @OptionGroup var global: GlobalOptions
    @OptionGroup var bench: BenchOptions

    @Option(help: "Size of the large file, MiB.")
    var sizeMib = FilesWorkload().sizeMiB

    @Option(help: "The number of random reads, and of random writes, of 4 KiB.")
    var operations = FilesWorkload().operations

    @Option(help: "The number of small files that are created and removed.")
    var files = FilesWorkload().files

    @Option(help: "Size of a small file, bytes.")
    var fileSize = FilesWorkload().fileBytes

    @Option(help: "Where the files are on the host; in memory, so that no disk affects the figures.")
    var directory = "/dev/shm"

    @OptionGroup var guest: BenchGuestOptions

    @Option(help: "The program to compare with.")
    var virtiofsd = "/usr/lib/qemu/virtiofsd"

    @Option(help: "Seconds that one guest may take.")
    var timeout = 300

    func validate() throws {
        guard (1...1 << 20).contains(sizeMib), (0...sizeMib << 8).contains(operations),
            (0...1_000_000).contains(files), (0...1 << 20).contains(fileSize), timeout > 0
        else {
            throw ValidationError(
                "sizes: 1 MiB to 1 TiB, no more operations than blocks of 4 KiB, up to a million files of up to 1 MiB")
        }
    }

    func run() async throws {
        let report = try await global.reporting { logger in
            let (driver, machine) = try Configuration.load(file: global.config)
                .benchMachine(guest, logger: logger)
            var files = FilesBench(driver: driver, machine: machine)
            files.workload.sizeMiB = sizeMib
            files.workload.operations = operations
            files.workload.files = self.files
            files.workload.fileBytes = fileSize
            files.virtiofsd = virtiofsd
            files.directory = directory
            files.timeout = .seconds(timeout)
            return try await files.run(
                rounds: bench.runs, command: CommandLine.arguments.joined(separator: " "),
                progress: BenchOptions.progress)
        }
        try await global.reporting { _ in try bench.show(report) }
    }
}
