import Glibc
import LinuxSystem
import Testing

@testable import Virtio

/// The network device with several pairs of queues.
@Suite(.timeLimit(.minutes(1))) struct NetPairsTests {
    private static let control: UInt64 = 1 << 17
    private static let multiqueue: UInt64 = 1 << 22
    private static let answer = NetScene.payload + 0x4_1000

    /// An interface of two pairs with its control queue, all started.
    private final class Scene {
        let net: NetScene
        /// To the guest and from it, of the second pair.
        let second: [FakeQueue]
        let control: FakeQueue

        init(features: UInt64 = NetScene.mergeable | NetPairsTests.control | NetPairsTests.multiqueue) throws {
            let net = try NetScene(features: features, pairs: 2)
            self.net = net
            second = try [2, 3].map { try FakeQueue($0, net.memory, size: 64, features: features) }
            let number = features & NetPairsTests.multiqueue == 0 ? 2 : 4
            control = try FakeQueue(number, net.memory, size: 64, features: features)
            try net.start()
            if number == 4 {
                for (index, queue) in second.enumerated() { try net.backend.start(queue: 2 + index, queue.setup) }
            }
            try net.backend.start(queue: number, control.setup)
        }

        /// Asks by the control queue; answers the status.
        func ask(_ request: [UInt8]) -> UInt8? {
            net.memory.write(request, at: NetScene.payload + 0x4_0000)
            net.memory.write([0x77], at: NetPairsTests.answer)
            control.ring.add([
                (NetScene.payload + 0x4_0000, UInt32(request.count), false), (NetPairsTests.answer, 1, true),
            ])
            control.signal()
            guard consume(control.call), control.ring.takeUsed().map(\.count) == [1] else { return nil }
            control.ring.setUsedEvent(control.ring.used)
            return net.memory.read(1, at: NetPairsTests.answer)[0]
        }

        /// Room for the longest frame.
        func giveBuffers(_ queue: FakeQueue, at offset: UInt64) {
            for index: UInt64 in 0..<40 { queue.ring.add([(NetScene.payload + offset + 2048 * index, 2048, true)]) }
            queue.signal()
        }
    }

    @Test func severalPairsAreOffered() throws {
        let net = try NetScene(pairs: 2)
        #expect(net.backend.queueCount == 5)
        #expect(net.backend.features == 0x1_bba3 | Self.control | Self.multiqueue)
        #expect(net.backend.configuration == [2, 0, 0, 0, 0, 7, 1, 0, 2, 0])
    }

    @Test func aPairTakesFramesFromWhenTheDriverWantsItTo() throws {
        let scene = try Scene()
        scene.giveBuffers(scene.second[0], at: 0)
        let frame = NetScene.frame(300)
        #expect(scene.net.arrive(frame, at: 1))
        usleep(50_000)
        #expect(scene.second[0].ring.takeUsed().isEmpty, "one pair is active at first")

        #expect(scene.ask([4, 0, 2, 0]) == 0)
        #expect(consume(scene.second[0].call))
        #expect(scene.second[0].ring.takeUsed().map(\.count) == [312])
        #expect(scene.net.memory.read(312, at: NetScene.payload).dropFirst(12).elementsEqual(frame))
        // The first goes on beside it.
        scene.giveBuffers(scene.net.receive, at: 0x2_0000)
        #expect(scene.net.arrive(frame))
        #expect(consume(scene.net.receive.call))

        #expect(scene.ask([4, 0, 1, 0]) == 0)
        scene.second[0].ring.setUsedEvent(scene.second[0].ring.used)
        #expect(scene.net.arrive(frame, at: 1))
        usleep(50_000)
        #expect(scene.second[0].ring.takeUsed().isEmpty, "and not any more")
    }

    @Test func whatTheSecondPairSendsLeavesByItsOwnTap() throws {
        let scene = try Scene()
        #expect(scene.ask([4, 0, 2, 0]) == 0)
        let bytes = [UInt8](repeating: 0, count: 12) + NetScene.frame(100)
        scene.net.memory.write(bytes, at: NetScene.payload)
        scene.second[1].ring.add([(NetScene.payload, UInt32(bytes.count), false)])
        scene.second[1].signal()
        var item = pollfd(fd: scene.net.wires[1].raw, events: Int16(POLLIN), revents: 0)
        #expect(poll(&item, 1, 2000) == 1)
        var got = [UInt8](repeating: 0, count: 1000)
        #expect(recv(scene.net.wires[1].raw, &got, got.count, 0) == bytes.count)
    }

    /// No pair, more than there are, an unknown command or class, too short, too long.
    @Test(
        arguments: [[4, 0, 0, 0], [4, 0, 3, 0], [4, 1, 1, 0], [0, 0, 1, 0], [4, 0, 1], [4, 0, 1, 0, 0]] as [[UInt8]])
    func whatIsNoSuchCommandFails(_ request: [UInt8]) throws {
        let scene = try Scene()
        #expect(scene.ask(request) == 1)
        #expect(scene.net.broken.current == nil)
    }

    /// Without VIRTIO_NET_F_MQ the control queue is the third one (virtio 1.2, 5.1.2).
    @Test func aDriverOfOnePairHasTheControlQueueElsewhere() throws {
        let scene = try Scene(features: NetScene.mergeable | Self.control)
        #expect(scene.ask([0, 0, 1]) == 1)
        scene.giveBuffers(scene.net.receive, at: 0)
        #expect(scene.net.arrive(NetScene.frame(60)))
        #expect(consume(scene.net.receive.call))
    }
}
