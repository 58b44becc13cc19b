import ArgumentParser
import Bench
import Sandbox

struct BenchFiles: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "files", abstract: "Compare the file device with Debian's virtiofsd, in one guest under QEMU.",
        discussion: """
            Boots the guest of `make guest-bench` twice a run, once with each server, and has it read and write a large \
            file, in a row and at random, and make and remove many small ones. Needs root.
            """)

    @OptionGroup var global: GlobalOptions
    @OptionGroup var bench: BenchOptions

    @Option(help: "Size of the large file, MiB.")
    var sizeMib = FilesWorkload().sizeMiB

    @Option(help: "How many blocks of 4 KiB of it are read, and written, at random.")
    var operations = FilesWorkload().operations

    @Option(help: "How many small files are made and removed.")
    var files = FilesWorkload().files

    @Option(help: "Bytes in each of these.")
    var fileSize = FilesWorkload().fileBytes

    @Option(help: "Where the files lie on the host: in memory, so that no disk has a part in the figures.")
    var directory = "/dev/shm"

    @Option(help: "The guest's kernel.")
    var kernel: String?

    @Option(help: "The guest's initial file system, with martlet-bench-guest as /init.")
    var initramfs: String?

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
                .benchMachine(kernel: kernel, initramfs: initramfs, logger: logger)
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
