import Testing

@testable import Virtio

/// How a worker decides to wait: sleeping, or polling.
@Suite struct PollPolicyTests {
    /// Records waits of a guest whose next request takes `sleeping` or `polling` nanoseconds to come, as the worker waits.
    ///
    /// - Returns: how many of the waits the worker polled through.
    private func run(
        _ policy: inout PollPolicy, _ waits: Int, sleeping: UInt64, polling: UInt64, preempted: Bool = false
    ) -> Int {
        var polled = 0
        for _ in 0..<waits {
            if policy.isPolling {
                polled += 1
                policy.record(polling, preempted: preempted)
            } else {
                policy.record(sleeping)
            }
        }
        return polled
    }

    @Test func pollsWhereThatIsFaster() {
        var policy = PollPolicy()
        #expect(!policy.isPolling, "nothing has been measured yet")
        let polled = run(&policy, 10_000, sleeping: 90_000, polling: 40_000)
        #expect(polled > 9_000)
    }

    @Test func sleepsWherePollingGainsNothing() {
        for polling: UInt64 in [89_000, 90_000, 300_000] {
            var policy = PollPolicy()
            let first = run(&policy, 10_000, sleeping: 90_000, polling: polling)
            #expect(first > 0, "it is tried")
            // And less and less often.
            _ = run(&policy, 100_000, sleeping: 90_000, polling: polling)
            let later = run(&policy, 50_000, sleeping: 90_000, polling: polling)
            #expect(later < 50_000 / 100, "\(later)")
        }
    }

    @Test func aQuietGuestIsNeverPolledFor() {
        var policy = PollPolicy()
        #expect(run(&policy, 10_000, sleeping: PollPolicy.longest, polling: 1) == 0)
        #expect(run(&policy, 10_000, sleeping: 5_000_000_000, polling: 1) == 0)
        #expect(run(&policy, 10_000, sleeping: .max, polling: .max) == 0)
    }

    @Test func pollingEndsWhenTheGuestBecomesQuiet() {
        var policy = PollPolicy()
        _ = run(&policy, 1_000, sleeping: 90_000, polling: 40_000)
        let polled = run(&policy, 10_000, sleeping: 10_000_000, polling: 10_000_000)
        #expect(polled <= 2 * PollPolicy.epoch)
    }

    @Test func anOccasionalPauseChangesNothing() {
        var policy = PollPolicy()
        var polled = 0
        for _ in 0..<300 {
            polled += run(&policy, 31, sleeping: 90_000, polling: 40_000)
            polled += run(&policy, 1, sleeping: 1_000_000_000, polling: 1_000_000_000)
        }
        #expect(polled > 8_000)
    }

    @Test func pollingEndsWhenAnotherThreadWantsTheCPU() {
        var policy = PollPolicy()
        _ = run(&policy, 100_000, sleeping: 90_000, polling: 40_000, preempted: true)
        #expect(run(&policy, 50_000, sleeping: 90_000, polling: 40_000, preempted: true) < 50_000 / 100)
        // When the other threads are gone the worker polls again.
        _ = run(&policy, 10_000, sleeping: 90_000, polling: 40_000)
        #expect(run(&policy, 10_000, sleeping: 90_000, polling: 40_000) > 9_000)
    }
}
