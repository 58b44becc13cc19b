import ArgumentParser
import OCISpec
import PodService
import Sandbox

struct Exec: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Execute a further process in a container that is created or running.",
        usage: "martlet exec [<options>] <container> <program> [<argument> ...]",
        discussion: "Exits with the process's exit code; 255 when it could not be started.")

    @OptionGroup var global: GlobalOptions

    @Option(help: "A Unix socket that gets the terminal's master descriptor.")
    var consoleSocket: String?

    @Option(help: "A Unix socket that gets a pidfd of the process on the host.")
    var pidfdSocket: String?

    @Option(help: "The working directory in the container.")
    var cwd: String?

    @Option(name: [.long, .short], parsing: .singleValue, help: "An environment variable, NAME=VALUE.")
    var env: [String] = []

    @Flag(name: [.long, .short], help: "Give the process a terminal.")
    var tty = false

    @Option(name: [.long, .short], help: "UID[:GID].")
    var user: String?

    @Option(name: [.customLong("additional-gids"), .customShort("g")], help: "A further group id.")
    var additionalGids: [UInt32] = []

    @Option(
        name: [.long, .short], help: "A file with the process, as the specification has it (process of config.json).")
    var process: String?

    @Flag(name: [.long, .short], help: "Return when the process has started.")
    var detach = false

    @Option(help: "A file that gets the id of the process on the host.")
    var pidFile: String?

    @Option(help: "The SELinux label of the process: refused, the guest has no SELinux.")
    var processLabel: String?

    @Option(help: "The AppArmor profile of the process: refused, the guest has no AppArmor.")
    var apparmor: String?

    @Flag(help: "Set no_new_privs.")
    var noNewPrivs = false

    @Option(name: [.customLong("cap"), .customShort("c")], help: "A capability that is added to the process's.")
    var capabilities: [String] = []

    @Option(
        help:
            "Descriptors after the standard ones that the process gets: only 0, no descriptor reaches a virtual machine."
    )
    var preserveFds = 0

    @Option(
        help:
            "The cgroup that the process starts in, a path below the container's that is there; /: the container's own."
    )
    var cgroup: String?

    @Flag(help: "Let a process in a paused container wait for resume.")
    var ignorePaused = false

    @Argument(help: "The container's id.")
    var id: String

    @Argument(parsing: .captureForPassthrough, help: "The program and its arguments.")
    var program: [String] = []

    func validate() throws {
        if process == nil, program.isEmpty { throw ValidationError("process args cannot be empty") }
        if preserveFds != 0 {
            throw ValidationError(
                "--preserve-fds \(preserveFds) is not supported: no descriptor reaches a virtual machine")
        }
        if let cgroup {
            if cgroup.isEmpty || cgroup.contains(":") {
                throw ValidationError(
                    "--cgroup \(cgroup): not a path; the guest has cgroups of version 2, without controllers by name")
            }
            if cgroup.split(separator: "/").contains("..") {
                throw ValidationError("--cgroup \(cgroup): \(cgroup) is not a sub cgroup path")
            }
        }
    }

    func run() async throws {
        let arguments = self
        var options = ExecOptions(
            id: id, processFile: process, pidFile: pidFile, consoleSocket: consoleSocket, pidfdSocket: pidfdSocket,
            isDetached: detach, ignoresPaused: ignorePaused, cgroup: cgroup ?? "")
        options.changes = { try arguments.apply(to: &$0) }
        try await global.exiting { [options] _ in try await global.runtime().exec(options) }
    }

    private func apply(to process: inout Process) throws {
        process.args = program.first == "--" ? Array(program.dropFirst()) : program
        process.terminal = tty
        if let cwd { process.cwd = cwd }
        process.env += env
        if let user { process.user = try Self.user(user) }
        process.user.additionalGids += additionalGids
        if noNewPrivs { process.noNewPrivileges = true }
        if let processLabel { process.selinuxLabel = processLabel }
        if let apparmor { process.apparmorProfile = apparmor }
        var sets = process.capabilities ?? Capabilities()
        for name in capabilities.map({ $0.uppercased() }) {
            for set in [\Capabilities.bounding, \.effective, \.permitted] where !sets[keyPath: set].contains(name) {
                sets[keyPath: set].append(name)
            }
            // As with runc: ambient ones must be inheritable, and this option makes none so.
            if !sets.inheritable.isEmpty, !sets.ambient.contains(name) { sets.ambient.append(name) }
        }
        if !capabilities.isEmpty { process.capabilities = sets }
    }

    private static func user(_ text: String) throws -> User {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        guard let uid = UInt32(parts[0]), let gid = parts.count == 2 ? UInt32(parts[1]) : 0 else {
            throw SandboxError.invalid("--user \(text): not UID[:GID]")
        }
        return User(uid: uid, gid: gid)
    }
}
