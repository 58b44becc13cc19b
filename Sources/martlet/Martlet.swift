import ArgumentParser
import Glibc
import LinuxSystem
import Logging
import Sandbox

/// Runs OCI containers, each pod in a virtual machine of its own.
@main
struct Martlet: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "martlet",
        abstract: "Runs OCI containers, each pod in its own lightweight virtual machine.",
        version: Version.text,
        subcommands: [
            Create.self, Start.self, Run.self, State.self, Kill.self, Delete.self, List.self, Processes.self, Exec.self,
            Pause.self, Resume.self, Update.self, Events.self, FeaturesCommand.self, SpecCommand.self, Checkpoint.self,
            Restore.self, Fork.self, PodCommand.self, TemplateCommand.self, PoolCommand.self, Plan.self,
            Check.self, DoctorCommand.self, MetricsCommand.self, BenchCommand.self, Version.self,
            PodServerCommand.self,
        ])

    @OptionGroup var global: GlobalOptions

    /// Parses the command line and runs the command. A failure becomes one message and an exit code other than 0.
    static func main() async {
        do {
            try await perform()
        } catch let error as Failure {
            error.report()
            Glibc.exit(1)
        } catch {
            // A container's own code may be any number.
            guard !(error is ExitCode), exitCode(for: error) == .validationFailure else { exit(withError: error) }
            // A bad command line ends as with runc.
            let message = fullMessage(for: error) + "\n"
            _ = write(STDERR_FILENO, message, message.utf8.count)
            Glibc.exit(1)
        }
    }

    /// - Parameter arguments: without the program's name; nil: the process's own.
    static func perform(_ arguments: [String]? = nil) async throws {
        var command = try parseAsRoot(arguments)
        if var command = command as? any AsyncParsableCommand {
            try await command.run()
        } else {
            try command.run()
        }
    }
}

/// The options of all commands. They may come before or after the command's name.
struct GlobalOptions: ParsableArguments {
    @Option(help: "The directory of the state of running pods.")
    var root: String?

    @Option(help: "Where log lines go; standard error when not given.")
    var log: String?

    @Option(help: "How log lines look: text or json.")
    var logFormat: LogFormat = .text

    @Flag(help: "Log what happens in detail, the guest's console too.")
    var debug = false

    /// The form of linux.cgroupsPath says the same; runc's users give the flag too.
    @Flag(help: "Take linux.cgroupsPath as SLICE:PREFIX:NAME, a scope of systemd.")
    var systemdCgroup = false

    @Option(help: "The configuration file; /etc/martlet/martlet.toml when not given.")
    var config: String?

    @Option(help: "true, false or auto: has no effect, what a user may not do is refused by name.")
    var rootless: String?

    var output: LogOutput { LogOutput(file: log, format: logFormat.format, debug: debug) }
}

enum LogFormat: String, ExpressibleByArgument, CaseIterable {
    case text, json
    var format: LogOutput.Format { self == .json ? .json : .text }
}

/// The failure of a command, and where to report it.
struct Failure: Error {
    var error: any Error
    var output: LogOutput

    func report() {
        do {
            try output.logger().error("\(error)")
        } catch let unusable {
            let message =
                "martlet: \(printable("\(error)", limit: 4096))\nmartlet: the log can't be written: \(unusable)\n"
            _ = write(STDERR_FILENO, message, message.utf8.count)
        }
    }
}

extension GlobalOptions {
    /// Runs a command's body. Reports an error as these options say.
    func reporting<R>(_ body: (Logger) async throws -> R) async throws -> R {
        do { return try await body(output.logger()) } catch let error as ExitCode { throw error } catch {
            throw Failure(error: error, output: output)
        }
    }

    /// Runs the body of a command that exits with another program's exit code, which it returns. An error is 255, as runc's exec has it:
    /// 1 might be that program's own.
    func exiting(_ body: (Logger) async throws -> Int32) async throws -> Never {
        do { throw ExitCode(try await reporting(body)) } catch let failure as Failure {
            failure.report()
            throw ExitCode(255)
        }
    }
}
