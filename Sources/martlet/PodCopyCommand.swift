import ArgumentParser
import Glibc
import PodService
import Sandbox

struct PodCopyCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cp",
        abstract: "Copy files between the host and a running container of a pod.",
        usage: """
            martlet pod cp [<options>] <pod>:<path> <destination>|-
            martlet pod cp [<options>] <source>|- <pod>:<path>
            """,
        discussion: """
            In place of the pod a container's id may stand. As cp does, a file or directory goes into a destination that is a directory, \
            and otherwise gets the destination's name; of a source that ends with /. what is in it is copied. Symbolic links stay links. \
            - is a tar archive on standard input or output. A path of the host with a colon in it begins with / or a point.
            """)

    @OptionGroup var global: GlobalOptions

    @Option(help: "The container of the pod, by its id or the beginning of it. Not needed where the pod has one only.")
    var container: String?

    @Flag(name: [.long, .customShort("a")], help: "Keep the owners of the files. Otherwise they are root's.")
    var archive = false

    @Flag(name: [.long, .customShort("L")], help: "Follow a symbolic link that the source is.")
    var followLink = false

    @Argument(help: "What is copied.")
    var source: String

    @Argument(help: "Where to.")
    var destination: String

    func run() async throws {
        try await global.reporting { _ in
            if destination == "-", isatty(STDOUT_FILENO) == 1 {
                throw SandboxError.invalid("-: standard output is a terminal")
            }
            let copying = FileCopying(
                source: source, destination: destination, container: container, keepsOwners: archive,
                followsLink: followLink)
            for name in try await copying.run(global.runtime()) {
                let message = "martlet: left out, as devices and fifos are not made on the host: \(name)\n"
                _ = write(STDERR_FILENO, message, message.utf8.count)
            }
        }
    }
}
