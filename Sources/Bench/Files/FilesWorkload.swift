/// What the guest of `martlet bench files` is to do with the files of its share.
public struct FilesWorkload: Sendable, Equatable {
    /// Of the one large file, MiB.
    public var sizeMiB = 256
    /// Reads, and writes, of 4 KiB of it at random.
    public var operations = 16_384
    /// Small files made and removed.
    public var files = 10_000
    /// Bytes in each of these.
    public var fileBytes = 1024

    public init() {}

    /// For the kernel's command line, which hands on to its first process what follows `--`.
    var kernelWords: [String] {
        [
            "--", "files", "size=\(sizeMiB << 20)", "operations=\(operations)", "files=\(files)",
            "file-size=\(fileBytes)",
        ]
    }

    /// How a phase of the guest is called in the report, and in which unit: so many bytes or pieces are one of it.
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
