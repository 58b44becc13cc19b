import ArgumentParser
import LinuxSystem
import PodService
import Sandbox

/// `martlet doctor`: what of this host is not as it should be.
struct DoctorCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Say what of this host is not as it should be, and the command that mends it; changes nothing.",
        discussion: "Exits with 1 when there is a fault: something for which pods don't run, or not as configured.")

    @OptionGroup var global: GlobalOptions

    @Flag(help: "As JSON.")
    var json = false

    @Option(help: ArgumentHelp("The directory of the engines' configurations.", visibility: .hidden))
    var etc = "/etc"

    func run() async throws {
        try await global.reporting { _ in
            let doctor = Doctor(configurationFile: global.config, root: global.root, etc: etc)
            let findings = await ProgressLine.show("looking at this host") { doctor.findings() }
            if json {
                try printJSON(findings)
            } else if findings.isEmpty {
                print("nothing is wrong")
            } else {
                for finding in findings {
                    print(
                        printable("\(finding.severity.rawValue): \(finding.subject): \(finding.problem)", limit: 4096))
                    print(printable("    \(finding.remedy)", limit: 4096))
                }
            }
            if findings.contains(where: { $0.severity == .fault }) { throw ExitCode(1) }
        }
    }
}
