/// The work that the guest of `martlet bench files` does on the files of its share.
public struct FilesWorkload: Sendable, Equatable {
    /// The size of the large file, MiB.
    public var sizeMiB = 256
    /// The number of random reads, and of random writes, of 4 KiB.
    public var operations = 16_384
    /// The number of small files that are created and removed.
    public var files = 10_000
    /// The size of a small file, bytes.
    public var fileBytes = 1024

    public init() {}

    /// Arguments for the kernel's command line. The kernel passes those after `--` to the first process.
    var kernelArguments: [String] {
        [
            "--", "files", "size=\(sizeMiB << 20)", "operations=\(operations)", "files=\(files)",
            "file-size=\(fileBytes)",
        ]
    }

    /// The name and unit of a phase in the report. A rate is divided by `divisor` to get the unit.
    struct Figure {
        var phase: String
        var name: String
        var unit: String
        var divisor: Double
    }

    static let figures = [
        Figure(phase: "sequential-read", name: "sequential read", unit: "MiB/s", divisor: 1_048_576),
        Figure(phase: "sequential-write", name: "sequential write", unit: "MiB/s", divisor: 1_048_576),
        Figure(phase: "random-read", name: "random read, 4 KiB", unit: "reads/s", divisor: 1),
        Figure(phase: "random-write", name: "random write, 4 KiB", unit: "writes/s", divisor: 1),
        Figure(phase: "create", name: "create files", unit: "files/s", divisor: 1),
        Figure(phase: "remove", name: "remove files", unit: "files/s", divisor: 1),
    ]
}
