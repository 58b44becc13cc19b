import LinuxSystem
import Testing

@Suite struct PaceTests {
    private let start = ContinuousClock.now

    @Test func aBurstIsAdmittedAndThenSoManyInASecond() {
        var pace = Pace(burst: 3, perSecond: 2)
        #expect((0..<5).map { _ in pace.admit(at: start) } == [0, 0, 0, nil, nil])
        #expect(pace.refused == 2)
        #expect(pace.admit(at: start + .milliseconds(400)) == nil)
        #expect(pace.admit(at: start + .milliseconds(500)) == 3, "how many were left out before")
        #expect(pace.refused == 0)
        #expect(pace.admit(at: start + .milliseconds(500)) == nil)
        // After a rest the whole burst, and no more.
        #expect((0..<4).map { _ in pace.admit(at: start + .seconds(60)) } == [1, 0, 0, nil])
    }

    @Test func whoWaitsIsToldHowLong() {
        var pace = Pace(burst: 2, perSecond: 10)
        #expect(pace.take(at: start) == .zero)
        #expect(pace.take(at: start) == .milliseconds(100))
        #expect(pace.take(at: start + .milliseconds(100)) == .milliseconds(100))
        #expect(pace.take(at: start + .seconds(9)) == .zero)
    }

    /// A clock that seems to go back gives nothing, and takes nothing away.
    @Test func anEarlierMomentCountsAsNoTime() {
        var pace = Pace(burst: 1, perSecond: 1)
        #expect(pace.admit(at: start) == 0)
        #expect(pace.admit(at: start - .seconds(5)) == nil)
    }
}
