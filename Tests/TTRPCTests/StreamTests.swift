import Synchronization
import Testing

@testable import TTRPC

/// Streaming calls of our client to our server.
@Suite(.timeLimit(.minutes(1))) struct StreamTests {
    @Test(arguments: [0, 1, 1000]) func aServersStreamComesWholeAndInOrder(count: Int64) async throws {
        let pair = try await Pair()
        var numbers: [Int64] = []
        for try await item in try await pair.service.count(ProbeItem(count)).responses { numbers.append(item.number) }
        #expect(numbers == Array(0..<count))
        await pair.server.stop()
    }

    @Test(arguments: [0, 1, 1000]) func aClientsStreamIsSummed(count: Int64) async throws {
        let pair = try await Pair()
        let call = try await pair.service.sum()
        for number in 0..<count { try await call.send(ProbeItem(number)) }
        #expect(try await call.finish().number == count * (count - 1) / 2)
        await pair.server.stop()
    }

    @Test func messagesGoBothWaysInTurn() async throws {
        let pair = try await Pair()
        let call = try await pair.service.chat()
        for number in 0..<200 {
            let item = ProbeItem(Int64(number), "turn", blob: number)
            try await call.send(item)
            #expect(try await call.responses.next() == item)
        }
        // A message of no bytes is a message.
        try await call.send(ProbeItem())
        #expect(try await call.responses.next() == ProbeItem())
        try await call.closeSend()
        #expect(try await call.responses.next() == nil)
        await pair.server.stop()
    }

    @Test func messagesOfTheLimitStreamAndLongerOnesAreRefused() async throws {
        let pair = try await Pair()
        let call = try await pair.service.chat()
        let item = ProbeItem(0, blob: FrameHeader.longest - 10)
        try await call.send(item)
        #expect(try await call.responses.next() == item)
        let error = await failure { () throws(TTRPCError) in
            try await call.send(ProbeItem(0, blob: FrameHeader.longest))
        }
        #expect(error?.code == .resourceExhausted)
        try await call.closeSend()
        #expect(try await call.responses.next() == nil)
        await pair.server.stop()
    }

    @Test func anErrorEndsAStreamAfterWhatWasSent() async throws {
        let pair = try await Pair()
        let call = try await pair.service.count(ProbeItem(0, "no more"))
        let error = await failure { () throws(TTRPCError) in try await call.responses.next() }
        #expect(error == TTRPCError(.aborted, "no more"))
        await pair.server.stop()
    }

    @Test func sendingAfterTheEndIsRefused() async throws {
        let pair = try await Pair()
        let call = try await pair.service.sum()
        #expect(try await call.finish().number == 0)
        let error = await failure { () throws(TTRPCError) in try await call.send(ProbeItem(1)) }
        #expect(error?.code == .failedPrecondition)
        await pair.server.stop()
    }

    @Test func aStreamEndsAtItsDeadline() async throws {
        let pair = try await Pair()
        let call = try await pair.service.chat(timeout: .milliseconds(100))
        let error = await failure { () throws(TTRPCError) in try await call.responses.next() }
        #expect(error?.code == .deadlineExceeded)
        await pair.server.stop()
    }

    @Test func aConnectionThatIsLostFailsItsStreams() async throws {
        let pair = try await Pair()
        let call = try await pair.service.chat()
        try await call.send(ProbeItem(1))
        _ = try await call.responses.next()
        let waiting = Task { await failure { () throws(TTRPCError) in try await call.responses.next() } }
        await pair.server.stop()
        #expect(await waiting.value?.code == .unavailable)
        let send = await failure { () throws(TTRPCError) in try await call.send(ProbeItem(1)) }
        #expect(send?.code == .unavailable || send?.code == .failedPrecondition)
    }

    /// A receiver that is slower than its sender holds the sender up, and loses nothing.
    @Test func aSlowReceiverLosesNothing() async throws {
        let pair = try await Pair()
        let call = try await pair.service.count(ProbeItem(2000, blob: 1000))
        var next: Int64 = 0
        while let item = try await call.responses.next() {
            #expect(item.number == next)
            next += 1
            if next % 100 == 0 { try await Task.sleep(for: .milliseconds(5)) }
        }
        #expect(next == 2000)
        await pair.server.stop()
    }

    /// A receiver that takes nothing is given up, so that other calls of the connection go on.
    @Test func aReceiverThatTakesNothingDoesNotStallTheConnection() async throws {
        let pair = try await Pair()
        let stuck = try await pair.service.count(ProbeItem(1_000_000, blob: 1000), timeout: .seconds(50))
        try await Task.sleep(for: .milliseconds(1500))
        #expect(try await pair.service.echo(ProbeItem(7), timeout: .seconds(10)).number == 7)
        let error = await failure { () throws(TTRPCError) in
            while try await stuck.responses.next() != nil {}
        }
        #expect(error?.code == .resourceExhausted)
        await pair.server.stop()
    }
}
