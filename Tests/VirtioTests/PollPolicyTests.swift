import Testing

@testable import Virtio

/// How a worker decides to wait: asleep, or looking.
@Suite struct PollJudgeTests {
    /// Waits of a guest whose next request takes so long to come when the worker sleeps, and when it looks; answers how
    /// many of them the worker looked through.
    private func run(
        _ judge: inout PollPolicy, _ waits: Int, asleep: UInt64, looking: UInt64, disturbed: Bool = false
    ) -> Int {
        var looked = 0
        for _ in 0..<waits {
            if judge.looks {
                looked += 1
                judge.note(looking, disturbed: disturbed)
            } else {
                judge.note(asleep)
            }
        }
        return looked
    }

    @Test func looksWhereThatIsQuicker() {
        var judge = PollPolicy()
        #expect(!judge.looks, "nothing is known yet")
        let looked = run(&judge, 10_000, asleep: 90_000, looking: 40_000)
        #expect(looked > 9_000)
    }

    @Test func sleepsWhereLookingBringsNothing() {
        for looking: UInt64 in [89_000, 90_000, 300_000] {
            var judge = PollPolicy()
            let first = run(&judge, 10_000, asleep: 90_000, looking: looking)
            #expect(first > 0, "tried")
            // And less and less often.
            _ = run(&judge, 100_000, asleep: 90_000, looking: looking)
            let later = run(&judge, 50_000, asleep: 90_000, looking: looking)
            #expect(later < 50_000 / 100, "\(later)")
        }
    }

    @Test func aQuietGuestIsNeverLookedFor() {
        var judge = PollPolicy()
        #expect(run(&judge, 10_000, asleep: PollPolicy.longest, looking: 1) == 0)
        #expect(run(&judge, 10_000, asleep: 5_000_000_000, looking: 1) == 0)
        #expect(run(&judge, 10_000, asleep: .max, looking: .max) == 0)
    }

    @Test func aGuestThatBecomesQuietIsLetAlone() {
        var judge = PollPolicy()
        _ = run(&judge, 1_000, asleep: 90_000, looking: 40_000)
        let looked = run(&judge, 10_000, asleep: 10_000_000, looking: 10_000_000)
        #expect(looked <= 2 * PollPolicy.epoch)
    }

    @Test func aPauseNowAndThenChangesNothing() {
        var judge = PollPolicy()
        var looked = 0
        for _ in 0..<300 {
            looked += run(&judge, 31, asleep: 90_000, looking: 40_000)
            looked += run(&judge, 1, asleep: 1_000_000_000, looking: 1_000_000_000)
        }
        #expect(looked > 8_000)
    }

    @Test func whoeverWantsTheProcessorGetsIt() {
        var judge = PollPolicy()
        _ = run(&judge, 100_000, asleep: 90_000, looking: 40_000, disturbed: true)
        #expect(run(&judge, 50_000, asleep: 90_000, looking: 40_000, disturbed: true) < 50_000 / 100)
        // When the others are gone it looks again.
        _ = run(&judge, 10_000, asleep: 90_000, looking: 40_000)
        #expect(run(&judge, 10_000, asleep: 90_000, looking: 40_000) > 9_000)
    }
}
