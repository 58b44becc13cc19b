import Testing

@testable import Sandbox

/// When a pod counts as idle. Times are seconds here.
@Suite struct IdleWatchTests {
    private static let second: UInt64 = 1_000_000_000

    /// What is due at each look, a second apart, when so much of a CPU was used since the one before, in hundredths.
    private func due(limit: UInt64 = 3, _ uses: [UInt64]) -> [Bool] {
        var watch = IdleWatch(limit: limit * Self.second)
        var cpu: UInt64 = 7 * Self.second
        return uses.enumerated().map { index, use in
            cpu += use * Self.second / 100
            return watch.isDue(cpu: cpu, at: (100 + UInt64(index)) * Self.second)
        }
    }

    @Test func itIsDueOnceWhenThePodHasBeenIdle() {
        #expect(due([0, 0, 0, 0, 0, 0]) == [false, false, false, true, false, false])
        // A twentieth of a CPU is idle, and more is not.
        #expect(due([0, 5, 5, 5, 5]) == [false, false, false, true, false])
        #expect(due([0, 0, 6, 0, 0, 0, 0]) == [false, false, false, false, false, true, false])
        #expect(!due([90, 90, 90, 90, 90, 90, 90]).contains(true))
    }

    @Test func itIsDueAgainAfterMoreWorkOrALongTime() {
        #expect(due([0, 0, 0, 0, 50, 0, 0, 0, 0]) == [false, false, false, true, false, false, false, true, false])
        let long = due([UInt64](repeating: 0, count: 70))
        #expect(long.indices.filter { long[$0] } == [3, 33, 63])
    }

    /// Whatever a guest says.
    @Test func numbersThatCantBe() {
        var watch = IdleWatch(limit: Self.second)
        for (cpu, time): (UInt64, UInt64) in [(.max, 1), (0, 2), (.max, 3), (.max, 4), (5, 4)] {
            let isDue = watch.isDue(cpu: cpu, at: time * Self.second / 2)
            #expect(!isDue)
        }
    }
}
