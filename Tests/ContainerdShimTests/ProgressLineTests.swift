import Glibc
import LinuxSystem
import Testing

@testable import PodService

/// The line by which a command says what it waits for.
@Suite struct ProgressLineTests {
    private struct Failure: Error {}

    /// What comes out of a terminal: the kernel passes it on a moment later.
    private func text(_ master: SharedDescriptor) throws -> String {
        try master.setNonBlocking(true)
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        for _ in 0..<20 {
            usleep(10_000)
            let count = read(master.raw, &buffer, buffer.count)
            text += buffer.prefix(max(0, count))
        }
        return String(decoding: text, as: UTF8.self)
    }

    @Test func whatTakesLongIsShownAndTakenAway() async throws {
        let (master, slave) = try Terminal.pair()
        let result = await ProgressLine.show("waiting\u{7}", on: slave.raw, after: .milliseconds(20)) {
            try? await Task.sleep(for: .milliseconds(300))
            return 5
        }
        #expect(result == 5)
        let shown = try text(master)
        #expect(shown.hasPrefix("\r\u{1b}[Kwaiting\\u{"), "\(shown.debugDescription)")
        #expect(shown.hasSuffix("} … 0 s\r\r\u{1b}[K") && !shown.contains("\u{7}"), "\(shown.debugDescription)")
    }

    @Test func whatIsQuickOrFailsLeavesNothing() async throws {
        let (master, slave) = try Terminal.pair()
        await #expect(throws: Failure.self) {
            try await ProgressLine.show("waiting", on: slave.raw, after: .seconds(100)) { throw Failure() }
        }
        #expect(try text(master).isEmpty)
    }

    @Test func nothingIsShownWhereThereIsNoTerminal() async throws {
        let (output, input) = try SharedDescriptor.pipe()
        await ProgressLine.show("waiting", on: input.raw, after: .zero) {
            try? await Task.sleep(for: .milliseconds(50))
        }
        #expect(try text(output).isEmpty)
    }
}
