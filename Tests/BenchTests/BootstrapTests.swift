import Testing

@testable import Bench

@Suite struct BootstrapTests {
    private func samples(_ values: [Double]) throws -> Samples { try #require(Samples(values)) }

    /// Values with noise of ±`noise` around a middle, the same each time.
    static func noisy(_ middle: Double, _ noise: Double, count: Int, seed: UInt64) -> [Double] {
        var state = seed
        return (0..<count).map { _ in
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return middle * (1 + noise * (Double(state >> 11) / Double(1 << 52) - 1))
        }
    }

    @Test func theMedianOfKnownSamples() throws {
        let values = (1...101).map(Double.init).shuffled()
        let estimate = Bootstrap.median(try samples(values))
        #expect(estimate.median == 51)
        // By order statistics, the 95 % interval of 101 values is the 41st to the 61st: 50.5 ± 1.96 · √101 / 2.
        #expect((39...43).contains(estimate.low) && (59...63).contains(estimate.high))
        #expect(Bootstrap.median(try samples(values)) == estimate, "the seed is fixed")
    }

    @Test func equalValuesHaveNoInterval() throws {
        let estimate = Bootstrap.median(try samples([Double](repeating: 7, count: 9)))
        #expect(estimate == Estimate(median: 7, low: 7, high: 7))
        #expect(estimate.isWithin(0.05) && estimate.contains(7) && !estimate.contains(7.1))
    }

    @Test func fewValuesGiveTheirRange() throws {
        #expect(Bootstrap.median(try samples([3, 1, 2])) == Estimate(median: 2, low: 1, high: 3))
        #expect(
            Bootstrap.pairedRatio(try samples([2, 3]), try samples([1, 2]))
                == Estimate(median: 2.5 / 1.5, low: 1.5, high: 2))
        #expect(Bootstrap.ratio(try samples([2, 4]), try samples([1, 2])) == Estimate(median: 2, low: 1, high: 4))
    }

    /// One value of a hundred times the others moves neither median nor interval far, and is not left out of the range.
    @Test func anOutlierStays() throws {
        let values = [Double](repeating: 10, count: 20) + [1000]
        let estimate = Bootstrap.median(try samples(values))
        #expect(estimate == Estimate(median: 10, low: 10, high: 10))
        #expect(Bootstrap.median(try samples([10, 10, 1000])).high == 1000)
    }

    /// About 95 of 100 intervals contain the median of what was sampled.
    @Test func intervalsContainTheTruth() throws {
        var hits = 0
        for seed in 1...200 {
            let values = Self.noisy(100, 0.3, count: 25, seed: UInt64(seed) &* 0x9e37_79b9_7f4a_7c15)
            if Bootstrap.median(try samples(values)).contains(100) { hits += 1 }
        }
        #expect((180...199).contains(hits), "\(hits) of 200")
    }

    @Test func fewRoundsTellNothing() {
        #expect(
            !Bootstrap.canTell(1, 1) && !Bootstrap.canTell(3, 3) && !Bootstrap.canTell(1, 30)
                && !Bootstrap.canTell(0, 9))
        #expect(
            Bootstrap.canTell(4, 4) && Bootstrap.canTell(3, 5) && Bootstrap.canTell(1, 39)
                && Bootstrap.canTell(200, 200))
    }

    /// What disturbs both sides of a round does not widen the interval of their ratio.
    @Test func pairsShareTheirRounds() throws {
        let below = Self.noisy(100, 0.5, count: 20, seed: 3)
        let above = below.map { $0 * 2 }
        let paired = try #require(Bootstrap.pairedRatio(try samples(above), try samples(below)))
        #expect(abs(paired.low - 2) < 1e-9 && abs(paired.high - 2) < 1e-9)
        let independent = try #require(Bootstrap.ratio(try samples(above), try samples(below)))
        #expect(independent.high - independent.low > 0.1)
        #expect(Bootstrap.pairedRatio(try samples([1, 2]), try samples([1])) == nil)
        #expect(Bootstrap.pairedRatio(try samples([1]), try samples([0])) == nil)
        #expect(Bootstrap.ratio(try samples([1]), try samples([0])) == nil)
    }
}
