import Synchronization

/// What a queue has done since its device was made. Its own thread counts; any thread reads.
public final class QueueCounters: Sendable {
    /// The numbers at one moment.
    public struct Counts: Equatable, Sendable {
        /// Given back to the driver.
        public var chains: UInt64 = 0
        /// That the driver was to get.
        public var interrupts: UInt64 = 0
        /// Bytes of the chains: what the device could read, and what it wrote.
        public var fromDriver: UInt64 = 0
        public var toDriver: UInt64 = 0

        public init(chains: UInt64 = 0, interrupts: UInt64 = 0, fromDriver: UInt64 = 0, toDriver: UInt64 = 0) {
            (self.chains, self.interrupts) = (chains, interrupts)
            (self.fromDriver, self.toDriver) = (fromDriver, toDriver)
        }
    }

    private let chains = Atomic<UInt64>(0), interrupts = Atomic<UInt64>(0)
    private let fromDriver = Atomic<UInt64>(0), toDriver = Atomic<UInt64>(0)

    /// Only one thread adds, so that no locked instruction is needed.
    @inline(__always)
    private func add(_ amount: UInt64, to counter: borrowing Atomic<UInt64>) {
        counter.store(counter.load(ordering: .relaxed) &+ amount, ordering: .relaxed)
    }

    @inline(__always)
    func chain(read: UInt32, written: UInt32) {
        add(1, to: chains)
        add(UInt64(read), to: fromDriver)
        add(UInt64(written), to: toDriver)
    }

    @inline(__always)
    func interrupt() { add(1, to: interrupts) }

    public var counts: Counts {
        Counts(
            chains: chains.load(ordering: .relaxed), interrupts: interrupts.load(ordering: .relaxed),
            fromDriver: fromDriver.load(ordering: .relaxed), toDriver: toDriver.load(ordering: .relaxed))
    }
}
