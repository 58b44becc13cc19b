import Glibc
import Testing

extension Containers {
    /// What `make install` makes from the command line's own parser.
    @Suite struct InstallTests {
        @Test func everyCommandHasAManPageAndCompletions() throws {
            try Scene.play { scene in
                let directory = try scene.makeDirectory("man")
                let manual = "\(Lab.repository)/scripts/manual.py"
                let dump = "'\(Lab.martlet)' --experimental-dump-help"
                _ = try Command.run("sh", ["-c", "\(dump) | '\(manual)' '\(directory)'"])
                let pages = Set(Leftovers.list(directory))
                let help = try Command.run(Lab.martlet, ["--help"])
                // A command's line in the help begins with two spaces and its name.
                let commands = help.components(after: "SUBCOMMANDS:").compactMap { line -> String? in
                    guard line.hasPrefix("  "), !line.hasPrefix("   ") else { return nil }
                    let word = line.dropFirst(2).prefix { $0 != " " }
                    return word == "See" ? nil : String(word)
                }
                #expect(commands.contains("create") && commands.contains("pod"), "\(commands)")
                for command in commands { #expect(pages.contains("martlet-\(command).1"), "\(command)") }
                #expect(pages.isSuperset(of: ["martlet.1", "martlet-pod-list.1"]))

                unlink("\(directory)/martlet-exec.1")
                let check = try Command("sh", ["-c", "\(dump) | '\(manual)' '\(directory)' --check"]).finish()
                #expect(check.code == 1)
                #expect(check.errorText == "missing man pages: martlet-exec.1\n")

                for shell in ["bash", "zsh", "fish"] {
                    let script = try Command.run(Lab.martlet, ["--generate-completion-script", shell])
                    for command in commands { #expect(script.contains(command), "\(shell): \(command)") }
                }
            }
        }
    }
}

extension String {
    /// The lines after the one that is `heading`.
    fileprivate func components(after heading: String) -> [Substring] {
        Array(split(separator: "\n").drop { $0 != heading }.dropFirst())
    }
}
