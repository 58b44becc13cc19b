import Glibc
import Testing

extension Containers {
    /// What an operator asks of pods that run: `martlet list`, `ps` and `logs`.
    @Suite struct InspectTests {
        @Test func aRunningPodIsListedWithItsProcessesAndConsole() throws {
            try Scene.play { scene in
                let id = scene.newID()
                let run = try scene.start(
                    bundle: scene.bundle(script: "trap 'exit 3' TERM; sleep 1000 & echo up; wait") {
                        $0.process?.user.uid = 1000
                    }, id: id)
                try run.output?.wait(for: "up\n")
                func martlet(_ arguments: String...) throws -> String {
                    try Command.run(Lab.martlet, ["--root", scene.root] + arguments)
                }
                let row = try #require(try martlet("pod", "list").split(separator: "\n").last)
                #expect(row.hasPrefix("\(id)   -           running   "))
                let processes = try martlet("pod", "ps", String(id.dropLast())).split(separator: "\n").map {
                    $0.split(separator: " ", maxSplits: 4).map { $0.drop { $0 == " " } }
                }
                #expect(processes.first?.last == "COMMAND")
                #expect(processes.dropFirst().compactMap(\.last).sorted().last == "sleep 1000")
                #expect(processes.count == 3, "\(processes)")
                #expect(processes.dropFirst().allSatisfy { $0[0] == id[...] && $0[1] == "running" && $0[3] == "1000" })
                #expect(try martlet("pod", "logs", id).contains("martlet-agent ready"))

                let following = try Command(Lab.martlet, ["--root", scene.root, "pod", "logs", "--follow", id])
                try following.output?.wait(for: "martlet-agent ready")
                let events = try martlet("pod", "events", id).split(separator: "\n")
                #expect(events.map { $0.split(separator: " ")[1] } == ["created", "started"], "\(events)")
                let top = try martlet("pod", "top", "--interval", "1", "--count", "1").split(separator: "\n")
                let fields = try #require(top.last?.split(separator: " "))
                #expect(top.count == 2 && fields[0] == id[...] && (Int(fields[2]) ?? 0) > 10, "\(top)")
                let watching = try Command(
                    Lab.martlet, ["--root", scene.root, "pod", "events", "--follow", "--json", id])
                try watching.output?.wait(for: #""type":"started""#)
                run.child.signal(SIGTERM)
                #expect(try run.finish().code == 3)
                #expect(try following.finish().code == 0, "a pod's end is no failure")
                let watched = try watching.finish()
                #expect(watched.code == 0 && watched.text.contains(#""exitStatus":3"#), "\(watched.text)")

                let missing = try Command(Lab.martlet, ["--root", scene.root, "pod", "ps", id]).finish()
                #expect(missing.code == 1)
                #expect(missing.errorText.contains("pod \(id) does not exist"))
            }
        }
    }
}
