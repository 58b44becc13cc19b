import LinuxSystem
import Synchronization

/// The threads of a machine's vCPUs, which are parked and stopped together. Thread-safe.
final class VCPUThreads: Sendable {
    /// What the threads run with.
    fileprivate struct Run {
        var buses: Buses
        var onEnd: @Sendable (Int, VCPUEnd) -> Void
        var onDead: @Sendable (Int, VCPURegisters) -> Void
    }

    fileprivate struct Progress {
        var vcpus: [VCPU]
        /// nil: they have not been started.
        var run: Run?
        var isStopped = false
        /// Those that the guest has ejected: they stay out of it.
        var ejected: Set<Int> = []
        /// Threads that have not ended.
        var alive: Set<Int> = []
        var parked: Set<Int> = []
        /// To be called when all are parked: true; or can't be any more: false.
        var onParked: (@Sendable (Bool) -> Void)?
        /// Answers to the open inspection; nil: none is open.
        var activities: [Int: VCPUActivity]?
    }

    private let progress: Mutex<Progress>

    init(_ vcpus: [VCPU]) { progress = Mutex(Progress(vcpus: vcpus)) }

    private var vcpus: [VCPU] { progress.withLock { $0.vcpus } }

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
        let run = Run(buses: buses, onEnd: onEnd, onDead: onDead)
        progress.withLock { $0.run = run }
        for vcpu in vcpus {
            do { try start(vcpu, run) } catch {
                stop()
                throw error
            }
        }
    }

    private func start(_ vcpu: VCPU, _ run: Run) throws(SystemError) {
        progress.withLock { _ = $0.alive.insert(vcpu.index) }
        let observer = VCPU.Observer(
            parked: { [self] in parked(vcpu.index) },
            inspected: { [self] in
                if let dead = inspected(vcpu.index, $0) { run.onDead(dead.index, dead.registers) }
            })
        do {
            try startThread("vcpu \(vcpu.index)") { [self] in
                let end = vcpu.run(run.buses, observer: observer)
                ended(vcpu.index)
                if end != .stopped { run.onEnd(vcpu.index, end) }
            }
        } catch {
            ended(vcpu.index)
            throw error
        }
    }

    // MARK: vCPUs that come and go

    /// Adds a vCPU: before the start, or to those that run; the guest starts it.
    ///
    /// - Throws: `SystemError` where there is no thread to be had.
    func add(_ vcpu: VCPU) throws(SystemError) {
        let run = progress.withLock { progress in
            progress.vcpus.append(vcpu)
            return progress.isStopped ? nil : progress.run
        }
        guard let run else { return }
        do { try start(vcpu, run) } catch {
            progress.withLock { $0.vcpus.removeAll { $0 === vcpu } }
            throw error
        }
    }

    /// Keeps a vCPU out of the guest, which has ejected it. Does not wait for its thread.
    func eject(_ index: Int) {
        let vcpu = progress.withLock { progress in
            progress.ejected.insert(index)
            return progress.vcpus.first { $0.index == index }
        }
        vcpu?.request(.park)
    }

    /// Has a vCPU that was ejected run again: the guest starts it anew.
    func readmit(_ index: Int) {
        let vcpu = progress.withLock { progress in
            progress.ejected.remove(index)
            return progress.vcpus.first { $0.index == index }
        }
        vcpu?.request(.run)
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
    func resume() {
        let (vcpus, ejected) = progress.withLock { ($0.vcpus, $0.ejected) }
        for vcpu in vcpus where !ejected.contains(vcpu.index) { vcpu.request(.run) }
    }

    /// Ends every vCPU, at its present instruction. Does not wait for the threads.
    func stop() {
        let (vcpus, onParked) = progress.withLock { progress in
            defer { progress.onParked = nil }
            progress.isStopped = true
            return (progress.vcpus, progress.onParked)
        }
        for vcpu in vcpus { vcpu.request(.stop) }
        onParked?(false)
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
            guard let activities = progress.activities, activities.count == progress.vcpus.count else { return nil }
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
