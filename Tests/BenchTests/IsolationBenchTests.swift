import Foundation
import Synchronization
import Testing

@testable import Bench

/// A directory that is removed with the test.
final class IsolationScene {
    let path: String

    init() throws {
        path = NSTemporaryDirectory() + "/isolation-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    @discardableResult
    func write(_ name: String, _ text: String, mode: Int = 0o644) throws -> String {
        let file = "\(path)/\(name)"
        try FileManager.default.createDirectory(
            atPath: (file as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
        try text.write(toFile: file, atomically: false, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: file)
        return file
    }
}

@Suite struct RuntimeDiscoveryTests {
    @Test func programsInThePath() throws {
        let scene = try IsolationScene()
        for name in ["b/runc", "a/crun", "b/crun", "b/runsc", "b/krun"] {
            try scene.write(name, "#!/bin/sh\n", mode: 0o755)
        }
        try scene.write("a/youki", "not executable")
        try scene.write("a/kata-runtime/file", "a directory")
        let path = "relative:\(scene.path)/a:\(scene.path)/none:\(scene.path)/b"
        let (runtimes, missing) = RuntimeDiscovery.find(path: path, kvmObjection: nil)
        #expect(
            runtimes.map(\.name) == ["runc", "crun", "runsc (systrap)", "runsc (kvm)", "runsc (ptrace)", "krun"]
                && missing.isEmpty)
        #expect(runtimes[1].program == "\(scene.path)/a/crun", "the first in the path")
        #expect(runtimes[2].options.first == "--platform=systrap")
        let without = RuntimeDiscovery.find(path: path, kvmObjection: "no vmx")
        #expect(without.runtimes.map(\.name) == ["runc", "crun", "runsc (systrap)", "runsc (ptrace)"])
        #expect(
            without.missing == [
                .init("runsc (kvm)", "it needs KVM, but no vmx"), .init("krun", "it needs KVM, but no vmx"),
            ])
        #expect(RuntimeDiscovery.find(path: "", kvmObjection: nil).runtimes.isEmpty)
    }

    @Test func aRuntimeByItsPath() throws {
        let scene = try IsolationScene()
        let program = try scene.write("mine", "#!/bin/sh\necho mine 1.2\necho more\n", mode: 0o755)
        let runtime = try RuntimeDiscovery.named("my=\(program)")
        #expect(runtime.name == "my" && runtime.program == program && runtime.options.isEmpty)
        #expect(runtime.withVersion().version == "mine 1.2")
        for text in ["my", "=\(program)", "my=\(scene.path)", "my=\(scene.path)/none"] {
            #expect(throws: BenchError.self) { try RuntimeDiscovery.named(text) }
        }
        let silent = try scene.write("silent", "#!/bin/sh\nexit 1\n", mode: 0o755)
        #expect(OCIRuntime("x", program: silent).withVersion().version.isEmpty)
    }
}

@Suite struct IsolationEngineTests {
    /// Engines call a runtime by one path: its options, with any characters, are in a script.
    @Test func optionsAreInScripts() throws {
        let scene = try IsolationScene()
        let program = try scene.write("it's", "#!/bin/sh\nprintf '%s|' \"$@\"\n", mode: 0o755)
        var runtime = OCIRuntime("mine", program: program, options: ["--config", "a b'c $HOME"])
        runtime.shim = .init(program: "/bin/sh", environment: ["PLACE=a 'b'"])
        let scripts = try IsolationEngineRuntime(runtime, side: 3, in: scene.path)
        #expect(scripts.program == IsolationEngineRuntime.program(of: 3, in: scene.path))
        func output(_ program: String, _ arguments: [String]) throws -> String {
            let process = Process()
            let pipe = Pipe()
            process.executableURL = URL(filePath: program)
            process.arguments = arguments
            process.standardOutput = pipe
            try process.run()
            process.waitUntilExit()
            return String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        }
        #expect(
            try output(scripts.program, ["run", "x y"])
                == "--config|a b'c $HOME|--root|\(scene.path)/engine-3-state|run|x y|")
        #expect(try output(#require(scripts.shim), ["-c", "echo \"$PLACE\""]) == "a 'b'\n")
        #expect(
            try IsolationEngineRuntime(OCIRuntime("x", program: program), side: 4, in: scene.path).shim == nil)
    }
}

@Suite struct IsolationRoundsTests {
    /// A clock that each turn moves on.
    fileprivate final class Clock: Sendable {
        private let time = Mutex(ContinuousClock.now)
        func move(_ duration: Duration) { time.withLock { $0 += duration } }
        var now: ContinuousClock.Instant { time.withLock { $0 } }
    }

    private func rounds(_ turns: [IsolationMeasure.Turn], seconds: Int, _ clock: Clock) -> IsolationRounds {
        var rounds = IsolationRounds(runtimes: 3, turns: turns, budget: .seconds(seconds))
        rounds.now = { clock.now }
        return rounds
    }

    @Test func theOrderMovesAndTheWarmUpDoesNotCount() throws {
        let clock = Clock()
        var rounds = rounds([.whole], seconds: 1000, clock)
        var order: [String] = []
        try rounds.run { round, turn, side in
            if round < 3 { order.append("\(round)\(side)") }
            return .init(figures: ["run": round == 0 ? 1000 : 10])
        }
        #expect(order == ["00", "01", "02", "11", "12", "10", "22", "20", "21"])
        // Equal values are known well enough after the fewest rounds.
        #expect(rounds.count == Bootstrap.fewest)
        let series = try #require(rounds.measures(of: [0, 1, 2], names: ["a", "runc", "c"]).first).series
        #expect(series.map(\.values) == [[Double]](repeating: [10, 10, 10, 10, 10, 10], count: 3))
        #expect(series[0].rounds == [1, 2, 3, 4, 5, 6] && series[0].warmUp == 1000 && series[0].cost?.median == 1)
    }

    @Test func theTimeEndsTheRounds() throws {
        let clock = Clock()
        var rounds = rounds([.whole], seconds: 100, clock)
        var number = 0.0
        try rounds.run { _, _, _ in
            clock.move(.seconds(5))
            number += 1
            return .init(figures: ["run": number])
        }
        // 15 seconds a round; after six of them, with the warm-up, ten are left.
        #expect(rounds.count == 5)
        let short = Clock()
        var least = self.rounds([.whole], seconds: 1, short)
        try least.run { _, _, _ in
            short.move(.seconds(5))
            return .init(figures: ["run": 1])
        }
        #expect(least.count == 1, "one round counts, however long it takes")
    }

    @Test func aSideThatFailsLetsTheOthersGoOn() throws {
        var rounds = rounds([.start, .whole, .load], seconds: 1000, Clock())
        var calls: [String] = []
        try rounds.run { round, turn, side in
            calls.append("\(round) \(turn) \(side)")
            if side == 0, turn == .start { throw BenchError("no start") }
            if side == 1, turn == .whole, round > 1 { throw BenchError("no run") }
            if side == 2, turn == .whole, round == 3 { throw BenchError("once") }
            var figures: [String: Double] = [:]
            for measure in IsolationMeasure.all where measure.turn == turn { figures[measure.key] = 5 }
            if side == 2 { figures["getpid"] = nil }
            return .init(figures: figures, missed: ["getpid": "refused"])
        }
        #expect(rounds.excluded == [0: "no start"])
        #expect(calls.filter { $0.hasSuffix("0") } == ["0 start 0"], "not tried again")
        #expect(calls.filter { $0.hasSuffix("whole 1") }.count == 5, "three failures are enough")
        #expect(calls.filter { $0.hasSuffix("whole 2") }.count == 8, "one more for the one that failed")
        let measures = rounds.measures(of: [1, 2], names: ["runc", "c"])
        let run = try #require(measures.first { $0.key == "run" })
        #expect(run.series[0].failure == "in round 2: no run" && run.series[0].values == [5])
        #expect(run.series[1].failure == "in round 3: once" && run.series[1].rounds == [1, 2, 4, 5, 6, 7])
        #expect(run.series[1].cost?.median == 1, "by the rounds that both have")
        let getpid = try #require(measures.first { $0.key == "getpid" })
        #expect(getpid.series[1].failure == "refused" && getpid.series[1].estimate == nil)
        #expect(measures.first { $0.key == "memory-10" } == nil)
    }

    @Test func anInterruptionEndsAll() {
        var rounds = rounds([.start], seconds: 10, Clock())
        #expect(throws: Interruption.Interrupted.self) {
            try rounds.run { _, _, _ in throw Interruption.Interrupted() }
        }
    }

    @Test func tenContainersTakeThreeRoundsAtMost() throws {
        var rounds = rounds([.ten], seconds: 1000, Clock())
        var calls = 0
        try rounds.run { round, _, _ in
            calls += 1
            return .init(figures: ["memory-10": Double(round)])
        }
        #expect(calls == 9)
    }
}

@Suite struct RuntimeTurnTests {
    /// A runtime that keeps what a container does in a process of its own.
    private static let script = """
        #!/bin/sh
        root=; command=
        while [ $# -gt 0 ]; do
            case $1 in --root) root=$2; shift ;; run|exec|kill|delete) command=$1; shift; break ;; esac
            shift
        done
        case $command in
            run)
                bundle=$2 id=$3
                case $bundle in
                    serving) echo $$ >"$root/$id"; echo up; exec sleep 1000 ;;
                    nothing) exit 0 ;;
                    broken) echo "no such thing" >&2; exit 3 ;;
                    leaving) (sleep 1000 </dev/null >/dev/null 2>&1 &); exit 0 ;;
                    load) echo martlet-bench begin getpid; sleep 0.2; echo martlet-bench end getpid 1000
                        echo martlet-bench missed futex not allowed here; echo martlet-bench done ;;
                esac ;;
            exec) exit 0 ;;
            kill) kill -KILL "$(cat "$root/$1")"; rm "$root/$1" ;;
        esac
        """

    private func turn(_ scene: IsolationScene, _ bundle: String) throws -> RuntimeTurn {
        let program = try scene.write("runtime", Self.script, mode: 0o755)
        return RuntimeTurn(
            runtime: OCIRuntime("fake", program: program), side: 3,
            bundles: .init(
                serving: bundle, nothing: bundle, pair: (bundle, bundle), load: bundle, echo: bundle, noise: bundle),
            root: scene.path,
            brood: try Brood(), limit: .seconds(20))
    }

    @Test func aContainerIsMeasuredAndEnded() throws {
        let scene = try IsolationScene()
        let turn = try turn(scene, "serving")
        let start = try turn.perform(.start)
        #expect(Set(start.figures.keys) == ["start", "exec", "memory-1"] && start.missed.isEmpty)
        #expect(start.figures.values.allSatisfy { $0 > 0 })
        #expect(try turn.perform(.pair).figures.keys.contains("two"))
        let ten = try #require(try turn.perform(.ten).figures["memory-10"])
        #expect(ten > 0 && ten < 10, "MiB of one sleep")
        #expect(turn.brood.members().isEmpty)
        #expect(try FileManager.default.contentsOfDirectory(atPath: scene.path) == ["runtime"])
    }

    @Test func whatFailsSaysWhy() throws {
        let scene = try IsolationScene()
        for kind in [IsolationMeasure.Turn.start, .whole, .pair, .load, .ten] {
            let error = #expect(throws: BenchError.self) { _ = try turn(scene, "broken").perform(kind) }
            #expect(error?.description.contains("no such thing") == true, "\(kind): \(String(describing: error))")
        }
        let leaving = try turn(scene, "leaving")
        let left = #expect(throws: BenchError.self) { _ = try leaving.perform(.whole) }
        #expect(left?.description == "fake left processes behind: sleep")
        #expect(leaving.brood.members().isEmpty)
    }

    @Test func theContainersWorkBecomesFigures() throws {
        let scene = try IsolationScene()
        let result = try turn(scene, "load").perform(.load)
        // 200 ms for a thousand calls, less what the reader comes late.
        #expect(try #require(result.figures["getpid"]) > 1000)
        #expect(
            result.missed["futex"] == "not allowed here" && result.missed["memory"] == "the container did not do it")
        let rate = IsolationMeasure.all.first { $0.key == "memory" }
        #expect(rate?.figure(.init(name: "memory", amount: 64 << 20, nanoseconds: 500_000_000)) == 128)
        let files = IsolationMeasure.all.first { $0.key == "files-root" }
        #expect(files?.figure(.init(name: "files-root", amount: 500, nanoseconds: 1_000_000)) == 2)
    }

    /// The delay is a script's around the runtime.
    @Test func aPlantedDelayIsNamed() throws {
        let scene = try IsolationScene()
        let real = try scene.write("runtime", Self.script, mode: 0o755)
        func report(_ delay: String) throws -> IsolationReport {
            let program = try scene.write("wrapper", "#!/bin/sh\n\(delay)\nexec \(real) \"$@\"\n", mode: 0o755)
            let bench = IsolationBench(
                runtimes: [OCIRuntime("fake", program: program)], missing: [], directory: scene.path)
            let clock = IsolationRoundsTests.Clock()
            var rounds = IsolationRounds(runtimes: 1, turns: [.whole], budget: .seconds(60))
            rounds.now = { clock.now }
            let turn = RuntimeTurn(
                runtime: bench.runtimes[0], side: 0,
                bundles: .init(serving: "", nothing: "nothing", pair: ("", ""), load: "", echo: "", noise: ""),
                root: scene.path,
                brood: try Brood(), limit: .seconds(20))
            try rounds.run { _, kind, _ in
                clock.move(.seconds(10))
                return try turn.perform(kind)
            }
            let host = HostConditions()
            return try bench.report(rounds, command: "", facts: [], from: host, to: host)
        }
        let changes = try report("sleep 0.5").changes(since: report(""))
        #expect(changes.count == 1 && changes[0].hasPrefix("worse: fake, whole run of `true`: "), "\(changes)")
    }

    @Test func memoryOfProcesses() {
        #expect(
            Brood.proportionalKiB("0-1 ---p 0 00:00 0 [rollup]\nRss: 900 kB\nPss: 700 kB\nPss_Dirty: 9 kB\n") == 700)
        #expect(Brood.proportionalKiB("") == 0)
        #expect(Brood.memory(of: [getpid()]) > 1)
    }
}

@Suite struct HostConditionsTests {
    private func host(_ scene: IsolationScene, governor: String, steal: Int, swapFree: Int, load: Double) throws
        -> HostConditions
    {
        try scene.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n")
        try scene.write("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", governor + "\n")
        try scene.write("sys/devices/system/cpu/cpuidle/x", "")
        try scene.write("proc/stat", "cpu  100 0 100 \(1000 - steal) 0 0 0 \(steal) 50 0\ncpu0 1 2 3\n")
        try scene.write("proc/meminfo", "MemTotal: 2097152 kB\nSwapTotal: 2048 kB\nSwapFree: \(swapFree) kB\n")
        try scene.write("proc/loadavg", "\(load) 1.0 1.0 1/100 1\n")
        try scene.write(
            "proc/cpuinfo",
            "processor\t: 0\nmodel name\t: A  CPU\nflags\t\t: fpu hypervisor\n\nprocessor\t: 1\nmodel name\t: A CPU\n")
        return HostConditions.read(root: scene.path)
    }

    @Test func eachDoubtIsNamed() throws {
        let scene = try IsolationScene()
        let begin = try host(scene, governor: "powersave", steal: 0, swapFree: 1024, load: 2.5)
        #expect(begin.model == "A CPU" && begin.processors == 2 && begin.isVirtualMachine && begin.memoryKiB == 2 << 20)
        var end = begin
        end.stolen += 10
        end.total += 100
        let warnings = HostConditions.warnings(from: begin, to: end, kvmObjection: "no vmx")
        #expect(warnings.count == 5)
        for (warning, word) in zip(warnings, ["powersave", "10.0 %", "1.00 MiB", "load 2.50", "no vmx"]) {
            #expect(warning.contains(word))
        }
    }

    @Test func aQuietHostHasNoWarnings() throws {
        let scene = try IsolationScene()
        let quiet = try host(scene, governor: "performance", steal: 0, swapFree: 2048, load: 0.1)
        #expect(HostConditions.warnings(from: quiet, to: quiet, kvmObjection: nil).isEmpty)
        let empty = HostConditions.read(root: "\(scene.path)/none")
        #expect(empty == HostConditions(), "nothing to read is no error")
    }

    @Test func theEmulatorsClock() {
        var host = HostConditions()
        let plain = OCIRuntime("runc", program: "/runc")
        let emulated = OCIRuntime("martlet (qemu)", program: "/m", emulator: "QEMU without KVM (TCG)")
        #expect(HostConditions.banner(host: host, runtimes: [plain]) == nil)
        #expect(
            HostConditions.banner(host: host, runtimes: [plain, emulated])?.contains(
                "martlet (qemu) ran on QEMU without KVM") == true)
        host.model = "QEMU TCG CPU version 2.5+"
        #expect(
            HostConditions.banner(host: host, runtimes: [plain])?.hasPrefix("THE EMULATOR'S CLOCK: this host's") == true
        )
    }
}
