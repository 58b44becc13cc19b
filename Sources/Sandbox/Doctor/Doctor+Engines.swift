import FoundationEssentials
import Glibc
import LinuxSystem

/// What the configurations of engines say of Martlet.
extension Doctor {
    func engines() -> [Finding] { containerd() + runtimes() }

    /// containerd finds a shim by the type's name in its PATH (core/runtime/v2/README.md of containerd).
    private func containerd() -> [Finding] {
        let directories = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".split(separator: ":")
        var found: [Finding] = []
        var seen: Set<String> = []
        for (file, line) in lines(in: "containerd", suffix: ".toml") {
            for word in Self.quoted(line) where word.hasPrefix("io.containerd.martlet") && seen.insert(word).inserted {
                let parts = word.split(separator: ".")
                guard parts.count == 4 else { continue }
                let shim = "containerd-shim-\(parts[2])-\(parts[3])"
                if directories.contains(where: { access("\($0)/\(shim)", X_OK) == 0 }) { continue }
                found.append(
                    Finding(
                        .fault, "containerd",
                        "\(file) names \(word), but \(shim) is not in \(directories.joined(separator: ":"))",
                        remedy: "ln -s \(Self.ownDirectory)/containerd-shim-martlet-v2 /usr/local/bin/\(shim)"))
            }
        }
        return found
    }

    /// podman, CRI-O and Docker have paths of the command.
    private func runtimes() -> [Finding] {
        var found: [Finding] = []
        var seen: Set<String> = []
        for (engine, suffix) in [("containers", ".conf"), ("crio", ".conf"), ("docker", ".json")] {
            for (file, line) in lines(in: engine, suffix: suffix) {
                for path in Self.quoted(line)
                where path.hasPrefix("/") && path.hasSuffix("/martlet") && seen.insert(path).inserted {
                    if access(path, X_OK) == 0 { continue }
                    found.append(
                        Finding(
                            .fault, engine == "containers" ? "podman" : engine,
                            "\(file) names \(path), which is not there",
                            remedy: "ln -s \(Self.ownDirectory)/martlet \(path)"))
                }
            }
        }
        return found
    }

    private static var ownDirectory: String {
        let path = GuestImage.ownPath()
        return String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)])
    }

    /// The lines of an engine's configuration, of its directories of drop-ins too; comments are left out.
    private func lines(in directory: String, suffix: String) -> [(file: String, line: Substring)] {
        var files: [String] = []
        func add(_ path: String, _ depth: Int) {
            for name in ((try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []).sorted() {
                if name.hasSuffix(suffix) { files.append("\(path)/\(name)") }
                if depth > 0, name.hasSuffix(".d") { add("\(path)/\(name)", depth - 1) }
            }
        }
        add("\(etc)/\(directory)", 1)
        return files.flatMap { file in
            ((try? readText(file)) ?? "").split(separator: "\n")
                .filter { !$0.drop { $0 == " " || $0 == "\t" }.hasPrefix("#") }.map { (file, $0) }
        }
    }

    /// The strings in a line of TOML or JSON.
    private static func quoted(_ line: Substring) -> [String] {
        line.split(separator: "\"", omittingEmptySubsequences: false).enumerated()
            .compactMap { $0.offset % 2 == 1 ? String($0.element) : nil }
    }
}
