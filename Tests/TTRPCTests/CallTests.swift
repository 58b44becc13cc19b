import CLinux
import Glibc
import LinuxSystem
import Synchronization
import Testing

@testable import TTRPC

/// Unary calls of our client to our server.
@Suite(.timeLimit(.minutes(1))) struct CallTests {
    @Test func aCallAnswersWithWhatWasSent() async throws {
        let pair = try await Pair()
        let item = ProbeItem(-5, "grüße", blob: 1000)
        #expect(try await pair.service.echo(item) == item)
        #expect(try await pair.service.echo(ProbeItem()) == ProbeItem())
        await pair.server.stop()
    }

    @Test func metadataTravelsInOrderAndRepeats() async throws {
        let pair = try await Pair()
        let answer = try await pair.service.echo(ProbeItem(), metadata: ["a": "1", "b": "x", "a": "2"])
        #expect(answer.metadata == ["a": "1;2;", "b": "x;"])
        await pair.server.stop()
    }

    @Test(arguments: 1...16) func everyCodeComesThroughWithItsDetails(code: Int64) async throws {
        let pair = try await Pair()
        let request = ProbeItem(code, "it went wrong")
        let error = await failure { () throws(TTRPCError) in try await pair.service.fail(request) }
        #expect(error?.code.rawValue == Int32(code))
        #expect(error?.message.hasSuffix("it went wrong") == true)
        #expect(try error?.details.first.map { try ProbeItem(unpackingAny: $0) } == request)
        await pair.server.stop()
    }

    /// A guest can neither claim that the connection is lost, nor send a terminal what it acts on, nor details.
    @Test(arguments: 1...16) func anErrorOfAGuestIsOneLineOfItsOwn(code: Int64) async throws {
        let pair = try await Pair(peer: .guest)
        let request = ProbeItem(code, "no\nerror: forged\u{1b}[2J\u{202e}")
        let error = await failure { () throws(TTRPCError) in try await pair.service.fail(request) }
        let isOfConnection = [TTRPCError.Code.cancelled, .deadlineExceeded, .unavailable].map(\.rawValue)
            .contains(Int32(code))
        #expect(error?.code.rawValue == (isOfConnection ? TTRPCError.Code.unknown.rawValue : Int32(code)))
        #expect(error?.message.hasSuffix(#"no\nerror: forged\u{1B}[2J\u{202E}"#) == true)
        #expect(error?.details.isEmpty == true)
        await pair.server.stop()
    }

    @Test func unknownServicesAndMethodsAreNamed() async throws {
        let pair = try await Pair()
        let service = await failure { () throws(TTRPCError) -> ProbeItem in
            try await pair.client.call("no.Such", "Echo", ProbeItem())
        }
        #expect(service == TTRPCError(.unimplemented, "service no.Such"))
        let method = await failure { () throws(TTRPCError) -> ProbeItem in
            try await pair.client.call("martlet.test.v1.Probe", "Nope", ProbeItem())
        }
        #expect(method == TTRPCError(.unimplemented, "method Nope of martlet.test.v1.Probe"))
        await pair.server.stop()
    }

    @Test func callsRunSideBySideAndDoNotMixUp() async throws {
        let pair = try await Pair()
        let service = pair.service
        try await withThrowingTaskGroup(of: Bool.self) { group in
            for number in 0..<500 {
                group.addTask {
                    let item = ProbeItem(Int64(number), "call \(number)", blob: number % 7 * 1000)
                    return try await service.echo(item) == item
                }
            }
            for try await same in group { #expect(same) }
        }
        await pair.server.stop()
    }

    @Test func aCallEndsAtItsDeadlineOnBothSides() async throws {
        let pair = try await Pair()
        let start = ContinuousClock.now
        let error = await failure { () throws(TTRPCError) in
            try await pair.service.sleep(ProbeItem(30_000), timeout: .milliseconds(100))
        }
        #expect(error?.code == .deadlineExceeded)
        #expect(ContinuousClock.now - start < .seconds(5))
        #expect(try await eventually { pair.probe.cancelled.load(ordering: .relaxed) == 1 })
        #expect(try await pair.service.echo(ProbeItem(1)).number == 1)
        await pair.server.stop()
    }

    @Test func aTimeThatIsUpIsStillADeadline() async throws {
        let pair = try await Pair()
        let error = await failure { () throws(TTRPCError) in
            try await pair.service.sleep(ProbeItem(30_000), timeout: .seconds(-3))
        }
        #expect(error?.code == .deadlineExceeded)
        await pair.server.stop()
    }

    @Test func aCallWithoutADeadlineIsAnswered() async throws {
        let pair = try await Pair()
        #expect(try await pair.service.sleep(ProbeItem(20), timeout: TTRPCClient.noTimeout).number == 20)
        await pair.server.stop()
    }

    @Test func cancellingTheTaskAbandonsTheCall() async throws {
        let pair = try await Pair()
        let service = pair.service
        let call = Task { await failure { () throws(TTRPCError) in try await service.sleep(ProbeItem(30_000)) } }
        #expect(try await eventually { pair.probe.running.load(ordering: .relaxed) == 1 })
        call.cancel()
        #expect(await call.value?.code == .cancelled)
        // The late answer to the abandoned call is nobody's.
        #expect(try await service.echo(ProbeItem(2)).number == 2)
        await pair.server.stop()
    }

    @Test func theLastMessageThatFitsGoesThroughAndTheNextIsRefused() async throws {
        let pair = try await Pair()
        let fits = ProbeItem(0, blob: FrameHeader.longest - 200)
        #expect(try await pair.service.echo(fits) == fits)
        let long = await failure { () throws(TTRPCError) in
            try await pair.service.echo(ProbeItem(0, blob: FrameHeader.longest))
        }
        #expect(long?.code == .resourceExhausted)
        #expect(try await pair.service.echo(ProbeItem(3)).number == 3)
        await pair.server.stop()
    }

    @Test func anAnswerThatIsTooLongIsAnError() async throws {
        let (near, far) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let server = TTRPCServer([
            TTRPCServiceDescription(
                "Long", methods: ["Get": .unary { (request: ProbeItem, _) in ProbeItem(0, blob: Int(request.number)) }])
        ])
        try await server.serve(connected: far)
        let client = try await TTRPCClient(connected: near)
        let error = await failure { () throws(TTRPCError) -> ProbeItem in
            try await client.call("Long", "Get", ProbeItem(Int64(FrameHeader.longest)))
        }
        #expect(error?.code == .resourceExhausted)
        let short: ProbeItem = try await client.call("Long", "Get", ProbeItem(3))
        #expect(short.blob.count == 3)
        await server.stop()
    }

    @Test func losingTheConnectionFailsEveryCallAndCallsTheHook() async throws {
        let hook = Mutex<[TTRPCError]>([])
        let pair = try await Pair { error in hook.withLock { $0.append(error) } }
        let service = pair.service
        let calls = (0..<20).map { _ in
            Task { await failure { () throws(TTRPCError) in try await service.sleep(ProbeItem(30_000)) } }
        }
        #expect(try await eventually { pair.probe.running.load(ordering: .relaxed) == 20 })
        await pair.server.stop()
        for call in calls {
            let error = await call.value
            #expect(error?.code == .unavailable, "\(String(describing: error))")
        }
        #expect(try await eventually { hook.withLock { $0.count } == 1 })
        #expect(try await eventually { pair.probe.cancelled.load(ordering: .relaxed) == 20 })
        let after = await failure { () throws(TTRPCError) in try await service.echo(ProbeItem()) }
        #expect(after?.code == .unavailable)
        #expect(hook.withLock { $0.count } == 1)
    }

    @Test func closingTheClientCancelsTheServersMethods() async throws {
        let hook = Atomic(0)
        let pair = try await Pair { _ in hook.add(1, ordering: .relaxed) }
        let service = pair.service
        let call = Task { await failure { () throws(TTRPCError) in try await service.sleep(ProbeItem(30_000)) } }
        #expect(try await eventually { pair.probe.running.load(ordering: .relaxed) == 1 })
        pair.client.close()
        #expect(await call.value?.code == .cancelled)
        #expect(try await eventually { pair.probe.cancelled.load(ordering: .relaxed) == 1 })
        #expect(try await eventually { pair.server.connectionCount == 0 })
        #expect(hook.load(ordering: .relaxed) == 0)
    }

    @Test func stoppingWithGraceSendsTheAnswersThatAreDue() async throws {
        let pair = try await Pair()
        let service = pair.service
        let call = Task { try await service.sleep(ProbeItem(200)).number }
        #expect(try await eventually { pair.probe.running.load(ordering: .relaxed) == 1 })
        await pair.server.stop(grace: .seconds(10))
        #expect(try await call.value == 200)
        #expect(pair.server.connectionCount == 0)
    }
}
