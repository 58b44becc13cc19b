import FoundationEssentials
import Glibc
import Testing

extension Containers {
    @Suite(.enabled(if: Containerd.obstacle == nil, "\(Containerd.obstacle ?? "")")) struct BenchPodTests {
        private struct Report: Decodable {
            struct Comparison: Decodable {
                struct Side: Decodable { var median: Double }
                var name: String
                var sides: [Side]
            }
            var sides: [String]
            var comparisons: [Comparison]
        }

        /// A containerd of the bench's own, asked by its CRI: both runtimes start and end pods, and nothing is left.
        @Test func podsOfTwoRuntimesAreMeasuredAndEnded() throws {
            try Scene.play { scene in
                let page = "\(scene.directory)/page.html"
                let handlers = ["martlet"] + (Lab.driver == .kvm ? ["martlet-template"] : []) + ["runc"]
                let bench = try Command(
                    Lab.martlet,
                    try scene.configuration() + [
                        "bench", "pod", "-n", "1", "--json", "--html", page, "--directory", scene.directory,
                    ] + handlers.flatMap { ["--handler", $0] }, environment: Lab.environment)
                let outcome = try bench.finish(within: .seconds(120) * Lab.patience)
                try #require(outcome.code == 0, "\(outcome.errorText)")
                let report = try JSONDecoder().decode(Report.self, from: Data(outcome.text.utf8))
                #expect(report.sides.filter { $0 != "martlet from a template" } == ["martlet", "runc"])
                #expect(report.sides.count == handlers.count)
                for comparison in report.comparisons where !comparison.name.hasPrefix("guest memory") {
                    #expect(comparison.sides.allSatisfy { $0.median > 0 }, "\(comparison.name)")
                }
                let own = report.comparisons.last?.sides.map(\.median) ?? []
                #expect(own.first ?? 0 > 16, "MiB of the guest")
                if Lab.driver == .kvm { #expect(own[1] < own[0], "a template's memory is shared") }
                #expect(Leftovers.read(page)?.contains("<svg") == true)
            }
        }

        /// A runtime that fails and leaves a process behind; the scene sees to it that it is gone.
        @Test func aRuntimeThatFailsLeavesNothing() throws {
            try Scene.play { scene in
                let programs = try scene.makeDirectory("bin")
                let witness = "\(scene.directory)/witness"
                try scene.write(
                    "bin/runc",
                    """
                    #!/bin/sh
                    case " $* " in *" create "*) ;; *) exit 1 ;; esac
                    setsid sh -c 'while :; do sleep 0.2; done' "$*" </dev/null >/dev/null 2>&1 &
                    echo "$*" >\(witness)
                    exit 1
                    """)
                chmod("\(programs)/runc", 0o755)
                let bench = try Command(
                    Lab.martlet, ["bench", "pod", "-n", "1", "--directory", scene.directory, "--handler", "runc"],
                    environment: Lab.environment(programs: programs))
                let outcome = try bench.finish(within: .seconds(120) * Lab.patience)
                #expect(outcome.code == 1)
                #expect(outcome.errorText.contains("RunPodSandbox: "), "\(outcome.errorText)")
                #expect(Leftovers.read(witness)?.contains("--bundle \(scene.directory)/") == true)
            }
        }

        @Test func whatIsMissingIsNamed() throws {
            try Scene.play { scene in
                let unknown = try Command(Lab.martlet, ["bench", "pod", "--handler", "nothing"]).finish()
                #expect(unknown.code == 1)
                #expect(unknown.errorText.contains("--handler nothing: an unknown runtime; installed are "))
                if Lab.driver == .qemu {
                    let template = try Command(
                        Lab.martlet, scene.configuration() + ["bench", "pod", "--handler", "martlet-template"]
                    ).finish()
                    #expect(template.code == 1)
                    #expect(
                        template.errorText.contains("martlet-template: it needs the built-in VMM, but the driver is"))
                }
                if Lab.program("containerd-shim-runsc-v1") == nil {
                    let runsc = try Command(Lab.martlet, ["bench", "pod", "--handler", "runsc"]).finish()
                    #expect(runsc.code == 1)
                    #expect(runsc.errorText.contains("--handler runsc: no containerd-shim-runsc-v1 in "))
                }
                let dead = try Command(
                    Lab.martlet, ["bench", "pod", "--address", "\(scene.directory)/no.sock", "--image", "x"]
                ).finish()
                #expect(dead.code == 1)
                #expect(dead.errorText.contains("connect to \(scene.directory)/no.sock"))
            }
        }
    }
}
