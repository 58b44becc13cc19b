import LinuxSystem
import OCISpec
import PodService
import Sandbox

/// Prints a value as JSON, its keys sorted.
func printJSON(_ value: some Encodable, isIndented: Bool = true) throws {
    print(String(decoding: try JSON.encode(value, indented: isIndented), as: UTF8.self))
}

/// Prints rows with aligned columns. The first row is the heading.
func printTable(_ rows: [[String]]) {
    let rows = rows.map { $0.map { printable($0, limit: 4096) } }
    let widths = (0..<(rows.first?.count ?? 0)).map { column in rows.map { $0[column].count }.max() ?? 0 }
    for row in rows {
        let cells = zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }
        var line = cells.joined(separator: "   ")
        while line.last == " " { line.removeLast() }
        print(line)
    }
}

extension GlobalOptions {
    /// The directory of the state of pods.
    func stateRoot() throws -> String { try root ?? Configuration.load(file: config).paths.root }

    /// What these options say to the commands of a runtime.
    func runtime() throws -> Runtime {
        Runtime(root: try stateRoot(), configurationFile: config, output: output)
    }

    /// The same for a command that starts a pod's server: a bad configuration is refused before.
    func runtimeForServers() throws -> Runtime {
        let configuration = try Configuration.load(file: config)
        return Runtime(
            root: root ?? configuration.paths.root, configurationFile: config, configuration: configuration,
            output: output)
    }
}
