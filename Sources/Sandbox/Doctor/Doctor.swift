import Hypervisor
import LinuxSystem

/// Looks for what of this host is not as it should be, and names what mends it. It changes nothing.
public struct Doctor: Sendable {
    /// What pods would be told.
    let configuration: Configuration
    /// Of the command, for remedies: ` --config FILE`.
    let options: String
    /// Holds the configurations of engines.
    let etc: String
    private let broken: Finding?

    /// Loads the configuration; where it can't be loaded, that is the first finding, and the rest is about the defaults.
    ///
    /// - Parameters:
    ///   - configurationFile: nil: the standard one.
    ///   - root: in place of `paths.root`.
    ///   - etc: in place of `/etc`.
    public init(configurationFile: String?, root: String?, etc: String = "/etc") {
        options = configurationFile.map { " --config \($0)" } ?? ""
        self.etc = etc
        var configuration: Configuration
        do {
            configuration = try .load(file: configurationFile)
            broken = nil
        } catch {
            configuration = Configuration()
            broken = Finding(
                .fault, "configuration", "\(error)", remedy: "edit the file; docs/configuration.md has all keys")
        }
        if let root { configuration.paths.root = root }
        self.configuration = configuration
    }

    /// Everything that was found, faults first.
    public func findings() -> [Finding] {
        let all = [broken].compactMap { $0 } + host() + resources() + leftovers() + templates() + pool() + engines()
        return all.filter { $0.severity == .fault } + all.filter { $0.severity == .advice }
    }
}
