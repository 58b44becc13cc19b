import Glibc
import Testing

extension Containers {
    /// Images in place of bundles.
    @Suite struct ImageTests {
        private static let missing: String? = ["skopeo", "umoci"].first { Lab.program($0) == nil }
            .map { "\($0) is not installed" }

        private func run(_ scene: Scene, _ arguments: [String], environment: [String] = Lab.environment) throws
            -> Outcome
        {
            try Command(
                Lab.martlet, ["--root", scene.root] + scene.configuration() + ["run"] + arguments,
                environment: environment
            ).finish(within: .seconds(90))
        }

        private var left: [String] { Leftovers.list("/var/tmp").filter { $0.hasPrefix("martlet-image.") } }

        @Test(.enabled(if: missing == nil, "\(missing ?? "")"))
        func anImageIsRun() throws {
            try Scene.play { scene in
                let archive = "\(scene.directory)/image.tar"
                try Command.run(
                    "\(Lab.repository)/scripts/image.py", ["docker.io/library/busybox:latest", archive, "echo", "own"])
                let own = try run(scene, ["--image", "docker-archive:\(archive)"])
                #expect(own.code == 0 && own.text == "own\n", "\(own.errorText)")
                let other = try run(
                    scene,
                    ["--image", "docker-archive:\(archive)", scene.newID(), "--", "sh", "-c", "uname; exit 3"])
                #expect(other.code == 3 && other.text == "Linux\n", "\(other.errorText)")

                try Command.run("skopeo", ["copy", "docker-archive:\(archive)", "oci:\(scene.directory)/layout:v1"])
                let layout = try run(scene, ["--image", "oci:\(scene.directory)/layout:v1", "--", "echo", "in"])
                #expect(layout.code == 0 && layout.text == "in\n", "\(layout.errorText)")
                #expect(left.isEmpty)
            }
        }

        @Test func whatIsNoImageIsRefused() throws {
            try Scene.play { scene in
                for (arguments, reason) in [
                    (["--image", "busybox"], "no transport"), (["--image", "ftp:x"], "ftp is none of"),
                    (["--image", "oci:/nowhere"], "no index.json"),
                    (["--image", "docker-archive:/nowhere"], "/nowhere"),
                    (["--image", "oci:/x", "--detach"], "neither --detach nor --keep"), ([], "id is missing"),
                    (["id", "--", "echo"], "a command goes with --image"),
                ] where Self.missing == nil || reason != "/nowhere" {
                    let outcome = try run(scene, arguments)
                    #expect(outcome.code == 1 && outcome.errorText.contains(reason), "\(outcome.errorText)")
                }
                let empty = try scene.makeDirectory("empty")
                let without = try run(
                    scene, ["--image", "docker-archive:/x"],
                    environment: Lab.environment.filter { !$0.hasPrefix("PATH=") } + ["PATH=\(empty)"])
                #expect(
                    without.code == 1 && without.errorText.contains("skopeo, which is not installed"),
                    "\(without.errorText)")
                #expect(left.isEmpty)
            }
        }
    }
}
