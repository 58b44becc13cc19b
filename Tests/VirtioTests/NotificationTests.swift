import Testing

@testable import Virtio

/// Interrupts and kicks, against what virtio 1.2, 2.7.7 and 2.7.10 say, over the wrap of the indices.
@Suite struct NotificationTests {
    /// Whether `event` was reached on the way from `old` to `new`: the definition, index by index.
    private func reached(_ event: UInt16, from old: UInt16, to new: UInt16) -> Bool {
        var index = old
        while index != new {
            if index == event { return true }
            index &+= 1
        }
        return false
    }

    @Test func interruptsByEventIndex() throws {
        let size: UInt16 = 4
        for start: UInt16 in [0, 1, 2, 3, 32766, 32767, 32768, 65531, 65532, 65533, 65534, 65535] {
            for first: UInt16 in 0...size {
                for second: UInt16 in 0...size {
                    for offset in -6...10 {
                        let event = start &+ UInt16(truncatingIfNeeded: offset)
                        let (_, ring, queue) = try VirtqueueTests.queue(size: UInt32(size), position: start)
                        try completeChains(first, ring, queue)
                        ring.setUsedEvent(event)
                        // The first interrupt after a start is always given: nothing is known yet.
                        #expect(queue.needsInterrupt() == (first > 0))
                        try completeChains(second, ring, queue)
                        let expected =
                            first > 0
                            ? reached(event, from: start &+ first, to: start &+ first &+ second) : second > 0
                        #expect(queue.needsInterrupt() == expected, "\(start) \(first) \(second) \(offset)")
                        #expect(!queue.needsInterrupt())
                    }
                }
            }
        }
    }

    @Test func chainsBytesAndInterruptsAreCounted() throws {
        let (_, ring, queue) = try VirtqueueTests.queue(size: 4, position: 0)
        for written: UInt32 in [7, 2] {
            ring.add([(VirtqueueTests.data, 5, false), (VirtqueueTests.data, 7, true)])
            #expect(try queue.next())
            queue.complete(written: written)
        }
        #expect(queue.needsInterrupt())
        #expect(!queue.needsInterrupt())
        #expect(queue.counters.counts == .init(chains: 2, interrupts: 1, fromDriver: 10, toDriver: 9))
    }

    private func completeChains(_ count: UInt16, _ ring: FakeRing, _ queue: Virtqueue) throws {
        for _ in 0..<count {
            ring.add([(VirtqueueTests.data, 1, true)])
            _ = try queue.next()
            queue.complete(written: 0)
        }
    }

    /// A driver that asks before its kick whether one is wanted never leaves a sleeping device with work: every
    /// order of its two steps and the device's two.
    @Test func noKickIsLost() throws {
        for start: UInt16 in [0, 65533, 65534, 65535] {
            for batch: UInt16 in 1...4 {
                for deviceArmsFirst in [true, false] {
                    let (_, ring, queue) = try VirtqueueTests.queue(size: 4, position: start)
                    for round in 0..<6 {
                        var sees = false
                        if deviceArmsFirst { sees = queue.armKick() }
                        #expect(!sees)
                        let old = ring.available
                        for _ in 0..<batch { ring.add([(VirtqueueTests.data, 1, true)]) }
                        let kicks = reached(ring.availableEvent, from: old, to: ring.available)
                        if !deviceArmsFirst { sees = queue.armKick() }
                        #expect(kicks || sees, "\(start) \(batch) round \(round)")
                        var taken: UInt16 = 0
                        while try queue.next() {
                            queue.complete(written: 0)
                            taken += 1
                        }
                        #expect(taken == batch)
                    }
                }
            }
        }
    }

    /// A device that gathers chains: kicked at the one that it named, not before, and never asleep with so many in the ring.
    @Test func aKickAfterSeveralChains() throws {
        for start: UInt16 in [0, 65530, 65534, 65535] {
            for count: UInt16 in 1...4 {
                for early: UInt16 in 0...5 {
                    let (_, ring, queue) = try VirtqueueTests.queue(size: 8, position: start)
                    for _ in 0..<early { ring.add([(VirtqueueTests.data, 1, true)]) }
                    #expect(queue.armKick(after: count) == (early >= count))
                    #expect(queue.isPending == (early > 0))
                    guard early < count else { continue }
                    for number in early + 1...count {
                        let old = ring.available
                        ring.add([(VirtqueueTests.data, 1, true)])
                        let kicks = reached(ring.availableEvent, from: old, to: ring.available)
                        #expect(kicks == (number == count), "\(start) \(count) \(early) \(number)")
                    }
                    #expect(queue.armKick(after: count))
                }
            }
        }
    }

    @Test func noKickIsAskedForWhileTheDeviceLooks() throws {
        let (_, ring, queue) = try VirtqueueTests.queue(size: 4)
        #expect(!queue.armKick())
        ring.add([(VirtqueueTests.data, 1, true)])
        #expect(try queue.next())
        queue.complete(written: 0)
        // Not armed again: the next chain is beyond the event.
        let old = ring.available
        ring.add([(VirtqueueTests.data, 1, true)])
        #expect(!reached(ring.availableEvent, from: old, to: ring.available))
    }

    @Test func withoutEventIndicesFlagsDecide() throws {
        let (memory, ring, queue) = try VirtqueueTests.queue(size: 4, features: [.version1])
        let driverFlags = ring.geometry.availableRing
        let deviceFlags = ring.geometry.usedRing
        try completeChains(1, ring, queue)
        #expect(queue.needsInterrupt())
        #expect(!queue.needsInterrupt())
        memory.store(UInt16(1), at: driverFlags)
        try completeChains(1, ring, queue)
        #expect(!queue.needsInterrupt())
        queue.disarmKick()
        #expect(memory.load(UInt16.self, at: deviceFlags) == 1)
        #expect(!queue.armKick())
        #expect(memory.load(UInt16.self, at: deviceFlags) == 0)
        ring.add([(VirtqueueTests.data, 1, true)])
        #expect(queue.armKick())
        // Flags can't say how many.
        #expect(queue.armKick(after: 3))
    }
}
