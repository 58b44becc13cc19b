import Testing

@testable import Bench

@Suite struct FiguresTests {
    @Test(arguments: [
        (1234.4, "1234"), (99.95, "100"), (99.94, "99.9"), (12.34, "12.3"), (9.996, "10.0"), (1.005, "1.00"),
        (0.126, "0.13"),
        (0, "0.00"), (-0.001, "0.00"), (-12.36, "-12.4"),
    ])
    func threeDigitsCount(value: Double, text: String) { #expect(Figures.short(value) == text) }

    @Test func decimals() {
        #expect(Figures.fixed(0.05, 1) == "0.1")
        #expect(Figures.fixed(1.0, 3) == "1.000")
        #expect(Figures.fixed(0.004, 2) == "0.00")
        #expect(Figures.fixed(-3, 0) == "-3")
        #expect(Figures.fixed(.infinity, 2) == "inf")
        #expect(Figures.fixed(1e300, 2) == "1e+300")
    }

    @Test func samples() throws {
        let odd = try #require(Samples([3, 1, 2]))
        #expect(odd.median == 2 && odd.minimum == 1 && odd.maximum == 3 && odd.spread == 1)
        let even = try #require(Samples([4, 1, 2, 3]))
        #expect(even.median == 2.5)
        #expect(try #require(Samples([7])).spread == 0)
        #expect(try #require(Samples([0, 0])).spread == 0)
        #expect(Samples([]) == nil && Samples([1, .nan]) == nil && Samples([.infinity]) == nil)
    }
}
