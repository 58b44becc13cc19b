import CLinux
import Glibc
import Hypervisor
import LinuxSystem
import Synchronization
import VMMControl

/// One guest with a disk of each side, from its start to its end.
enum DiskRun {
    struct Plan: Sendable {
        var driver: QEMUDriver
        var machine: VMConfiguration
        /// The file that each of the disks is.
        var path: String
        var workload: DiskWorkload
        /// How often the guest measures each disk.
        var rounds: Int
        /// How long the guest may take beyond its measurements.
        var timeout: Duration
        /// The guest takes turns with that of another machine. Both have a virtio console, of which a line takes both the same time.
        var takesTurns: Bool

        /// The machine of a guest with these disks.
        func machine(_ sides: [DiskSide]) -> VMConfiguration {
            var machine = machine
            if takesTurns { machine.kernelArguments.append("console=hvc0") }
            machine.kernelArguments += workload.kernelArguments(disks: sides, rounds: rounds)
            return machine
        }

        func timeout(_ sides: [DiskSide]) -> Duration {
            let turns = rounds * DiskWorkload.patterns.count * sides.count
            return timeout + .milliseconds(2 * workload.milliseconds * turns)
        }
    }

    struct Result: Sendable {
        var phases: [PhaseRecorder.Phase]
        /// How Martlet's disk was served; nil: the guest had none.
        var mode: DiskMode?
    }

    /// The phase in which the guest measures a disk.
    static func phase(_ pattern: DiskWorkload.Pattern, _ side: DiskSide) -> String { "\(pattern.phase)/\(side.serial)" }

    /// What the guest has reported, and what the processes of its machine have printed.
    final class Record: Sendable {
        private let recorder = Mutex(PhaseRecorder())
        private let errors = Mutex<[String]>([])
        private let turns: Int
        private let progress: @Sendable (Int) -> Void

        /// - Parameter progress: called with the number of rounds that are done.
        init(_ sides: [DiskSide], progress: @escaping @Sendable (Int) -> Void) {
            turns = DiskWorkload.patterns.count * sides.count
            self.progress = progress
        }

        /// Takes an error message.
        func log(_ line: String) { errors.withLock { $0.append(line) } }

        /// Takes a line of the guest's console.
        func take(_ line: String) {
            let now = monotonicNanoseconds()
            let count = recorder.withLock {
                let before = $0.phases.count
                $0.record(line, at: now)
                return $0.phases.count > before ? $0.phases.count : 0
            }
            if count > 0, count % turns == 0 { progress(count / turns) }
        }

        /// The phases of a guest that has done all of its work.
        ///
        /// - Parameters:
        ///   - end: why the guest had to be ended; nil: it has powered off.
        ///   - console: the last that it has printed.
        func phases(end: String?, console: Console) throws -> [PhaseRecorder.Phase] {
            let record = recorder.withLock { $0 }
            if record.isDone { return record.phases }
            let reported = record.failure.map { ["the guest: \($0)"] } ?? []
            let reasons = reported + (end.map { [$0] } ?? []) + errors.withLock { $0.suffix(5) }
            let tail = console.tail(10).map { "\n  \($0)" }.joined()
            throw BenchError("\(reasons.joined(separator: "; "))\(tail)")
        }
    }

    /// Boots the guest and waits until it has powered off.
    ///
    /// - Parameter progress: called with the number of rounds that are done.
    static func perform(
        _ plan: Plan, _ sides: [DiskSide], progress: @escaping @Sendable (Int) -> Void
    ) throws -> Result {
        let record = Record(sides, progress: progress)
        if sides == [.builtIn] {
            let guest = try BuiltInGuest(plan, record)
            defer { guest.end() }
            return Result(phases: try guest.phases(within: plan.timeout(sides), record), mode: guest.mode)
        }
        let server =
            sides.contains(.martlet)
            ? try MartletDisk(plan.path, queues: Disk.queues(vcpus: plan.machine.vcpus)) { record.log($0) } : nil
        defer { server?.end() }
        let own = server.map {
            QEMUDriver.diskArguments(descriptor: Guest.firstDescriptor, queues: Int($0.mode.queues))
        }
        let guest = try Guest(
            plan.driver, plan.machine(sides),
            devices: (own ?? []) + sides.compactMap { $0.arguments(path: plan.path) }.flatMap { $0 },
            hasVirtioConsole: plan.takesTurns, sockets: server.map { [$0.machine] } ?? [], log: { record.log($0) },
            onLine: { record.take($0) })
        defer { guest.end() }
        let end = try guest.wait(plan.timeout(sides)) { server?.ended }
        return Result(phases: try record.phases(end: end, console: guest.console), mode: server?.mode)
    }
}

/// `martlet-device blk`, as in a pod.
final class MartletDisk {
    /// The machine's end of the vhost-user connection.
    let machine: SharedDescriptor
    let mode: DiskMode
    private let device: DeviceProcess

    init(_ path: String, queues: UInt8, log: @Sendable @escaping (String) -> Void) throws {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let file = try OwnedDescriptor.open(path, O_RDWR)
        device = try DeviceProcess("martlet-device", "blk", log: log) { notice in
            if case .broken(let reason) = notice { log("martlet-device blk: \(reason)") }
        }
        machine = theirs
        do {
            mode = try DiskMode(
                device.client.startBlock(
                    vhostUser: ours.raw, files: DiskFiles(file.raw), readOnly: false, id: DiskSide.martlet.serial,
                    queues: queues
                ).wait())
        } catch {
            device.child.signal(SIGKILL)
            throw error
        }
    }

    var ended: ProcessEnd? { device.child.ended }

    func end() {
        device.child.signal(SIGKILL)
        _ = device.child.waitForEnd(timeout: .seconds(5))
    }
}

/// The file of one run, full of data, so that nothing is left to allocate.
struct DiskFile: Sendable {
    let path: String

    init(in directory: String, mib: Int) throws {
        var template = Array("\(directory)/martlet-bench-disk.XXXXXX".utf8CString)
        let file = OwnedDescriptor(owning: try check("mkstemp", directory, mkstemp(&template)))
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        do {
            let bytes = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) | 1 }
            for number in 0..<mib {
                try bytes.withUnsafeBytes { try writeAll($0, to: file.raw, at: Int64(number) << 20, path) }
            }
            try check("fsync", path, fsync(file.raw))
        } catch {
            unlink(path)
            throw error
        }
    }

    func remove() { unlink(path) }
}
