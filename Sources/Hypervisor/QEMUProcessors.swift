import Synchronization

/// The vCPUs of a machine that QEMU runs, of which some come and go.
///
/// In software QEMU 7.2 breaks its heap when a vCPU is unplugged and another one plugged: there they stay, and the guest's agent keeps
/// them offline.
///
/// Source: QEMU docs/system/cpu-hotplug.rst, qapi/machine.json (`query-hotpluggable-cpus`).
final class QEMUProcessors: Sendable {
    /// A vCPU that was plugged.
    private struct Plugged: Equatable {
        /// What QEMU calls it. A name is never used twice.
        var id: String
        /// Where it is in the machine's topology.
        var place: [String: Int]
    }

    private let maximum: Int
    private let canUnplug: Bool
    /// Those that are there from the start on, and stay.
    private let first: Int
    /// In the order in which they were plugged; the next name's number; how many vCPUs the guest is to have.
    private let state: Mutex<(plugged: [Plugged], next: Int, wanted: Int)>

    init(count: Int, maximum: Int, _ accelerator: QEMUDriver.Accelerator) {
        self.maximum = maximum
        canUnplug = accelerator == .kvm
        first = count
        state = Mutex(([], 0, count))
    }

    /// The value of `-smp`.
    static func argument(_ vm: VMConfiguration) -> String {
        vm.maximumVCPUs > vm.vcpus ? "\(vm.vcpus),maxcpus=\(vm.maximumVCPUs)" : "\(vm.vcpus)"
    }

    /// vCPUs that the guest has, or is getting.
    func count(_ qmp: any QEMUMonitor, timeout: Duration) throws -> Int {
        let (isEmpty, wanted) = state.withLock { ($0.plugged.isEmpty, $0.wanted) }
        if isEmpty { return first }
        if !canUnplug { return wanted }
        return first + (try update(places(qmp, timeout: timeout))).count
    }

    /// Plugs vCPUs, or asks the guest to let go of those that were plugged last.
    func set(_ wanted: Int, _ qmp: any QEMUMonitor) throws {
        guard (1...maximum).contains(wanted) else {
            throw HypervisorError("\(wanted) vCPUs: the machine can have 1 to \(maximum)")
        }
        let places = try places(qmp, timeout: QMP.timeout)
        let plugged = update(places)
        state.withLock { $0.wanted = wanted }
        for vcpu in plugged.dropFirst(max(0, wanted - first)).reversed() where canUnplug {
            try qmp.execute("device_del", ["id": .text(vcpu.id)])
        }
        // QEMU tells the last place first; the guest numbers them in the order in which they come.
        let free = places.filter { $0.path == nil }.reversed()
        for place in free.prefix(max(0, wanted - first - plugged.count)) { try plug(place, qmp) }
    }

    private func places(_ qmp: any QEMUMonitor, timeout: Duration) throws -> [QMP.Answer.Processor] {
        try qmp.execute("query-hotpluggable-cpus", timeout: timeout).processors
    }

    /// Forgets those that are gone.
    ///
    /// - Returns: those that are there.
    private func update(_ places: [QMP.Answer.Processor]) -> [Plugged] {
        state.withLock { state in
            state.plugged.removeAll { vcpu in places.contains { $0.props == vcpu.place && $0.path == nil } }
            return state.plugged
        }
    }

    private func plug(_ place: QMP.Answer.Processor, _ qmp: any QEMUMonitor) throws {
        let id = state.withLock { state in
            defer { state.next += 1 }
            return "cpu\(state.next)"
        }
        var arguments: [String: QMP.Argument] = ["driver": .text(place.type), "id": .text(id)]
        for (name, value) in place.props { arguments[name] = .number(value) }
        try qmp.execute("device_add", arguments)
        state.withLock { $0.plugged.append(Plugged(id: id, place: place.props)) }
    }
}
