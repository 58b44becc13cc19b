import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    @Suite struct ExitTests {
        /// Runs two containers at a time, which is what two processors carry.
        private func codes(_ scene: Scene, _ scripts: [String], edit: (inout Spec) -> Void = { _ in }) throws -> [Int32]
        {
            var codes: [Int32] = []
            for index in stride(from: 0, to: scripts.count, by: 2) {
                let pair = try scripts[index..<min(index + 2, scripts.count)].map { script in
                    try scene.start(bundle: scene.bundle(script: script, edit: edit))
                }
                for run in pair {
                    let outcome = try run.finish()
                    #expect(outcome.errorText == "" && outcome.text == "")
                    codes.append(outcome.code)
                }
            }
            return codes
        }

        @Test func exitCodesComeThrough() throws {
            try Scene.play { scene in
                let wanted: [Int32] =
                    Lab.everything ? [0, 1, 2, 125, 126, 127, 128, 129, 137, 254, 255] : [0, 1, 128, 255]
                let codes = try codes(scene, wanted.map { "exit \($0)" })
                #expect(codes == wanted)
            }
        }

        @Test func deathBySignalIs128AndItsNumber() throws {
            try Scene.play { scene in
                // Not the first process of a namespace, which no signal from inside would end.
                let signals = [SIGKILL, SIGTERM, SIGSEGV, SIGABRT]
                let codes = try codes(scene, signals.map { "kill -\($0) $$" }) { spec in
                    for index in spec.linux?.namespaces.indices ?? 0..<0
                    where spec.linux?.namespaces[index].kind == .pid {
                        spec.linux?.namespaces[index].joinSandbox()
                    }
                    spec.process?.rlimits.append(Rlimit(type: "RLIMIT_CORE", hard: 0, soft: 0))
                }
                #expect(codes == signals.map { 128 + $0 })
            }
        }

        @Test func signalsReachTheProcess() throws {
            try Scene.play { scene in
                let script =
                    "trap 'echo int' INT; trap 'echo term; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
                let run = try scene.start(bundle: scene.bundle(script: script))
                try run.output?.wait(for: "ready\n")
                // The output may come before the reply to the start, and a signal until then ends the container.
                usleep(useconds_t(200_000 * Lab.patience))
                run.child.signal(SIGINT)
                try run.output?.wait(for: "int\n", within: .seconds(10))
                run.child.signal(SIGTERM)
                let outcome = try run.finish(within: .seconds(20))
                #expect(outcome.text == "ready\nint\nterm\n")
                #expect(outcome.code == 7)
            }
        }
    }
}
