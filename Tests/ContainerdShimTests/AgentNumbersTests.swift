import TaskAPI
import Testing

@testable import PodService

/// A guest may report any number: none ends the program that prints it.
@Suite struct AgentNumbersTests {
    @Test(
        arguments: [
            (0, 0, "0"), (1, .max, "99"), (.max, .max, "99"), (.max, 1, "0"), (1000, 500, "50"), (.max, 1 << 63, "50"),
        ] as [(UInt64, UInt64, String)])
    func aProcesssShareOfItsTime(age: UInt64, cpuTime: UInt64, share: String) {
        let row = processRow(
            .with {
                $0.age = age
                $0.cpuTime = cpuTime
                $0.command = "x"
            })
        #expect(row[3] == share)
        #expect(row.count == 8 && row[7] == "x")
    }

    @Test func countersAreTheLargestWhereTheyAreTooLarge() {
        let report = ContainerStatsReport(
            .with {
                $0.cpu.usageUsec = .max
                $0.cpu.userUsec = 7
                $0.cpu.throttledUsec = .max / 1000 + 1
            })
        #expect(report.cpu.usage.total == .max && report.cpu.usage.user == 7000)
        #expect(report.cpu.throttling.throttledTime == .max)
    }
}
