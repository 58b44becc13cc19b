import Bench
import FoundationEssentials
import Glibc
import OCISpec

/// A temporary directory for bundles and the state of pods.
struct BenchDirectory {
    let path: String

    init(in directory: String = "/tmp") throws {
        var template = Array("\(directory)/martlet-bench.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw BenchError("mkdtemp: \(String(cString: strerror(errno)))") }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    func remove() {
        do { try FileManager.default.removeItem(atPath: path) } catch {
            BenchOptions.progress("remove \(path): \(error)")
        }
    }

    /// Creates a bundle that runs `arguments`. A bundle that exists already gets a new config.json.
    ///
    /// - Parameters:
    ///   - edit: changes the configuration before it is written.
    ///   - fill: fills an empty root file system.
    /// - Returns: the bundle's directory.
    func bundle(
        _ name: String, _ arguments: [String], edit: (inout Spec) -> Void = { _ in },
        fill: (_ rootfs: String) throws -> Void
    ) throws -> String {
        let bundle = "\(path)/bundle-\(name)"
        let files = FileManager.default
        if !files.fileExists(atPath: bundle) {
            for directory in ["bin", "dev", "proc", "sys", "tmp", "etc"] {
                try files.createDirectory(atPath: "\(bundle)/rootfs/\(directory)", withIntermediateDirectories: true)
            }
            try fill("\(bundle)/rootfs")
        }
        var spec = Spec.standard()
        spec.process?.terminal = false
        spec.process?.args = arguments
        spec.linux?.resources = nil
        edit(&spec)
        try Data(JSON.encode(spec, indented: true)).write(to: URL(filePath: "\(bundle)/config.json"))
        return bundle
    }

    /// Creates a bundle with busybox.
    func bundle(_ arguments: [String], busybox: String) throws -> String {
        try bundle("\(arguments.count)", arguments) { rootfs in
            try Self.install(busybox, as: ["sh", "true", "echo", "sleep"], in: rootfs)
        }
    }

    /// - Throws: `BenchError` where the option's program is not there.
    static func checkBusybox(_ busybox: String) throws {
        if access(busybox, X_OK) != 0 {
            throw BenchError("--busybox \(busybox): not an executable file (Debian: apt install busybox-static)")
        }
    }

    /// Gives a root file system busybox, under some of its names.
    static func install(_ busybox: String, as names: [String], in rootfs: String) throws {
        let files = FileManager.default
        try files.copyItem(atPath: busybox, toPath: "\(rootfs)/bin/busybox")
        for name in names {
            try files.createSymbolicLink(atPath: "\(rootfs)/bin/\(name)", withDestinationPath: "busybox")
        }
    }
}
