import FoundationEssentials
import LinuxSystem

extension Configuration {
    /// Copies the files that `load` reads to a directory, and adds settings that override all of theirs.
    ///
    /// - Parameters:
    ///   - file: nil: the standard file.
    ///   - directory: does not exist yet.
    ///   - settings: TOML.
    /// - Returns: the file that has `load` read the copy.
    public static func copy(file: String?, to directory: String, with settings: String) throws -> String {
        let main = file ?? standardFile
        try makeDirectories("\(directory)/martlet.d", mode: 0o755)
        func write(_ text: String, _ name: String) throws {
            try Data(text.utf8).write(to: URL(filePath: "\(directory)/\(name)"))
        }
        try write(read(main, mayBeMissing: file == nil) ?? "", "martlet.toml")
        for dropIn in try dropIns(beside: main) {
            let name = dropIn.split(separator: "/").last ?? ""
            try write(read(dropIn, mayBeMissing: false) ?? "", "martlet.d/0-\(name)")
        }
        // Drop-ins are read in the order of their names.
        try write(settings, "martlet.d/1-last.toml")
        return "\(directory)/martlet.toml"
    }
}
