import LinuxSystem
import Synchronization

/// The threads of a machine's vCPUs, which are started, parked and stopped together. Thread-safe.
final class VCPUThreads: Sendable {
    fileprivate struct Progress {
        /// Threads that have not ended.
        var alive: Set<Int> = []
        var parked: Set<Int> = []
        /// To be called when all are parked: true; or can't be any more: false.
        var onParked: (@Sendable (Bool) -> Void)?
        /// Answers to the open inspection; nil: none is open.
        var activities: [Int: VCPUActivity]?
    }

    let vcpus: [VCPU]
    private let progress = Mutex(Progress())

    init(_ vcpus: [VCPU]) { self.vcpus = vcpus }

    /// Starts a thread for each vCPU.
    ///
    /// - Parameters:
    ///   - onEnd: a vCPU has ended by itself; called on its thread.
    ///   - onDead: an inspection found that no vCPU can go on; called on any vCPU's thread.
    /// - Throws: `SystemError` where there is no thread to be had. Those that run already are stopped.
    func start(
        _ buses: Buses, onEnd: @escaping @Sendable (Int, VCPUEnd) -> Void,
        onDead: @escaping @Sendable (Int, VCPURegisters) -> Void
    ) throws(SystemError) {
        try VCPUSignal.install()
        for vcpu in vcpus {
            progress.withLock { _ = $0.alive.insert(vcpu.index) }
            let observer = VCPU.Observer(
                parked: { [self] in parked(vcpu.index) },
                inspected: { [self] in if let dead = inspected(vcpu.index, $0) { onDead(dead.index, dead.registers) } })
            do {
                try startThread("vcpu \(vcpu.index)") { [self] in
                    let end = vcpu.run(buses, observer: observer)
                    ended(vcpu.index)
                    if end != .stopped { onEnd(vcpu.index, end) }
                }
            } catch {
                ended(vcpu.index)
                stop()
                throw error
            }
        }
    }

    // MARK: Requests

    /// Has every vCPU leave the guest and wait.
    ///
    /// - Parameter done: called once, on any thread: true when all are parked, false when they were stopped before.
    func park(_ done: @escaping @Sendable (Bool) -> Void) {
        progress.withLock {
            $0.parked = []
            $0.onParked = done
            $0.activities = nil
        }
        for vcpu in vcpus { vcpu.request(.park) }
    }

    /// Has the parked vCPUs run again.
    func resume() { for vcpu in vcpus { vcpu.request(.run) } }

    /// Ends every vCPU, at its present instruction. Does not wait for the threads.
    func stop() {
        for vcpu in vcpus { vcpu.request(.stop) }
        progress.withLock { progress in
            defer { progress.onParked = nil }
            return progress.onParked
        }?(false)
    }

    /// Asks every vCPU what it does. Nothing happens where an inspection is under way.
    func inspect() {
        let isNew = progress.withLock { progress in
            guard progress.activities == nil, progress.onParked == nil else { return false }
            progress.activities = [:]
            return true
        }
        if isNew { for vcpu in vcpus { vcpu.request(.inspect) } }
    }

    // MARK: Answers

    private func parked(_ index: Int) {
        let done = progress.withLock { progress in
            progress.parked.insert(index)
            return progress.takeParked()
        }
        done?(true)
    }

    private func ended(_ index: Int) {
        let done = progress.withLock { progress in
            progress.alive.remove(index)
            return progress.takeParked()
        }
        done?(false)
    }

    /// Takes an answer to an inspection.
    ///
    /// - Returns: the lowest dead vCPU when this was the last answer and no vCPU can go on.
    private func inspected(_ index: Int, _ activity: VCPUActivity) -> (index: Int, registers: VCPURegisters)? {
        progress.withLock { progress in
            progress.activities?[index] = activity
            guard let activities = progress.activities, activities.count == vcpus.count else { return nil }
            progress.activities = nil
            if activities.values.contains(.running) { return nil }
            for (index, activity) in activities.sorted(by: { $0.key < $1.key }) {
                if case .dead(let registers) = activity { return (index, registers) }
            }
            return nil
        }
    }
}

extension VCPUThreads.Progress {
    /// Whom to tell that all are parked, if they are.
    fileprivate mutating func takeParked() -> (@Sendable (Bool) -> Void)? {
        guard parked.isSuperset(of: alive) else { return nil }
        defer { onParked = nil }
        return onParked
    }
}
