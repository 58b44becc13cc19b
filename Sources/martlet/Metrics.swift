import ArgumentParser
import Glibc
import PodService
import Sandbox
import Telemetry

/// `martlet metrics`: the metrics of all pods, once or as a server.
struct MetricsCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "metrics", abstract: "Print the metrics of this host's pods, or serve them by HTTP.")

    @OptionGroup var global: GlobalOptions

    @Option(help: "The form: prometheus or openmetrics. With --listen each client says which it wants.")
    var format: MetricFormat?

    @Option(
        help: ArgumentHelp(
            "Answer HTTP requests for /metrics at HOST:PORT or unix:PATH until SIGINT or SIGTERM.", valueName: "address"
        ))
    var listen: ListenAddress?

    func validate() throws {
        if listen != nil, format != nil { throw ValidationError("--format: has no effect with --listen") }
    }

    func run() async throws {
        try await global.reporting { _ in
            let metrics = try HostMetrics(root: global.stateRoot())
            guard let listen else { return print(await metrics.text(format ?? .prometheus), terminator: "") }
            try await MetricsService(metrics).run(at: listen) {
                print("metrics are served at \($0)")
                fflush(nil)
            }
        }
    }
}

extension MetricFormat: ExpressibleByArgument {}

extension ListenAddress: ExpressibleByArgument {
    public init?(argument: String) { self.init(argument) }
}
