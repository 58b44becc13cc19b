import Glibc
import LinuxSystem
import Testing

extension Containers {
    @Suite(.enabled(if: Containerd.obstacle == nil, "\(Containerd.obstacle ?? "")"))
    struct ContainerdLifeCycleTests {
        /// `MARTLET_TEST_LIFE_CYCLES`: how many containers come and go.
        private static let count = Lab.variable("MARTLET_TEST_LIFE_CYCLES").flatMap { Int($0) } ?? 200
        private static let atOnce = 4

        /// After many, the host has what it had before.
        @Test(.enabled(if: Lab.everything || Lab.variable("MARTLET_TEST_LIFE_CYCLES") != nil))
        func manyContainersLeaveNothing() throws {
            try Containerd.play { containerd, scene in
                // What the first ones make for good, such as the group above the containers' own.
                try live(Self.atOnce, containerd, scene)
                let before = try settled(containerd) { _ in false }
                try live(Self.count, containerd, scene)
                let after = try settled(containerd) { $0 == before }
                let changed = before.keys.filter { before[$0] != after[$0] }.sorted()
                    .map { "\($0): \(before[$0] ?? 0), then \(after[$0] ?? 0)" }
                #expect(changed == [])
            }
        }

        private func live(_ count: Int, _ containerd: Containerd, _ scene: Scene) throws {
            for start in stride(from: 0, to: count, by: Self.atOnce) {
                let runs = try (start..<min(start + Self.atOnce, count)).map { number in
                    let program = ["/bin/sh", "-c", "echo \(number); exit \(number % 100)"]
                    return (number, try containerd.begin(Containerd.run(["--rm"], scene.newID(), program)))
                }
                for (number, run) in runs {
                    let outcome = try run.finish()
                    #expect(
                        outcome.code == Int32(number % 100) && outcome.text == "\(number)\n", "\(outcome.errorText)")
                }
            }
        }

        /// Counts until `isRight`, or five seconds have passed.
        private func settled(
            _ containerd: Containerd, _ isRight: ([String: Int]) -> Bool
        ) throws -> [String: Int] {
            let end = ContinuousClock.now + .seconds(5) * Lab.patience
            while true {
                let counts = try count(containerd)
                if isRight(counts) || ContinuousClock.now > end { return counts }
                usleep(200_000)
            }
        }

        /// How many things of each kind there are that a container may leave.
        private func count(_ containerd: Containerd) throws -> [String: Int] {
            let pid = try #require(containerd.pid)
            let lines = { (script: String) in
                try Command.shell(script).split(separator: "\n").count
            }
            return [
                "processes": Leftovers.livingProcesses,
                "descriptors of containerd": Leftovers.list("/proc/\(pid)/fd").count,
                "mounts": try lines("cat /proc/self/mountinfo"),
                "mounts of containerd": try lines("cat /proc/\(pid)/mountinfo"),
                "control groups": try lines("find /sys/fs/cgroup -path '*/default/*' -type d"),
                "links": try lines("ip -o link"),
                "traffic control": try lines("tc qdisc show"),
                "network namespaces": try lines("lsns -n -t net -o NS"),
                "files of pods": try lines("find \(containerd.pods)"),
                "files of containerd": try lines("find \(containerd.tasks)"),
                "sockets": try lines("grep -F \(containerd.pods) /proc/net/unix || true"),
            ]
        }
    }
}
