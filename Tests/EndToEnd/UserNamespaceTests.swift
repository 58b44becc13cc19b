import Glibc
import Testing

extension Containers {
    /// What rootless engines do: they call the runtime as root of a user namespace.
    @Suite struct UserNamespaceTests {
        @Test func aContainerRunsWithASingleID() throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(script: "id -u; echo x >/made; cat /made; exit 7")
                let inside = ["--map-root-user", "--mount", "--net", Lab.martlet]
                let outcome = try Command("unshare", inside + scene.runArguments(bundle: bundle)).finish()
                #expect(outcome.code == 7 && outcome.lines == ["0", "x"], "\(outcome.errorText)")
                let check = try Command("unshare", ["--map-root-user", Lab.martlet, "check"]).finish()
                #expect(check.lines.contains { $0.hasPrefix("users: this user namespace has a single id") })
            }
        }
    }
}
