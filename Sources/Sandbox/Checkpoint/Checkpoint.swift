import LinuxSystem
import OCISpec

/// What a checkpoint says of its pod, beside the state of the machine, of its memory and of its file server.
struct Checkpoint: Sendable, Equatable, Codable {
    /// Changes with every change of what is in a checkpoint.
    static let currentVersion = 2

    /// A share of the file device.
    struct Share: Sendable, Equatable, Codable {
        /// As the guest knows it.
        var name: String
        /// Where the agent has made it available, absolute in the guest.
        var guestPath: String
        var isReadOnly: Bool
        /// A name for its file system on the host, and its path there, by which other shares are compared with it.
        var fileSystem: String
        var root: String?
    }

    /// A network interface of the machine.
    struct Interface: Sendable, Equatable, Codable {
        /// 6 bytes.
        var hardwareAddress: [UInt8]
        /// Pairs of queues.
        var pairs: Int
    }

    /// A container of the pod, which had begun and not ended.
    struct Container: Sendable, Equatable, Codable {
        /// As its agent knows it.
        var plan: SandboxPlan.Container
        /// Its id on the host, and the directory of its bundle.
        var id: String
        var bundle: String
        var terminal: Bool
        /// The numbers by which the agent knows the container's sockets of the host, in their order.
        var sockets: [UInt32]
        /// In the order of the plan's mounts.
        var shares: [Share]
    }

    var version = Checkpoint.currentVersion
    /// RFC 3339, with nanoseconds, UTC.
    var created: String
    var shape: TemplateShape
    /// The pod's id on the host.
    var pod: String
    /// The one that the pod was made with comes first.
    var containers: [Container]
    /// The files of the containers' disks, which are read-only.
    var diskFiles: [TemplateShape.File]
    /// How often the machine has been restored before.
    var generation: Int
    var interfaces: [Interface]
    /// Of the next stream of a process, and of the next target on the host: the agent knows the ones before.
    var nextStream: UInt64
    var nextTarget: UInt32
}

extension Checkpoint {
    /// What is counted up has a bound that no pod reaches, and that leaves room to count on.
    private static let highestNumber: UInt32 = 1 << 24
    private static let mostContainers = 1024
    private static let mostShares = 4096
    private static let mostInterfaces = 32

    /// Whoever wrote the checkpoint may have put any number there.
    ///
    /// - Throws: `SandboxError.invalid` with the field.
    func check() throws(SandboxError) {
        func require(_ condition: Bool, _ field: String) throws(SandboxError) {
            if !condition { throw .invalid("checkpoint.json: \(field): out of range") }
        }
        let numbers = 1...Self.highestNumber
        try require((1...Self.mostContainers).contains(containers.count), "containers")
        try require(Set(containers.map(\.id)).count == containers.count, "containers.id")
        try require(Set(containers.map(\.plan.id)).count == containers.count, "containers.plan.id")
        try require(containers.reduce(0) { $0 + $1.shares.count } <= Self.mostShares, "containers.shares")
        for container in containers {
            try require(container.sockets.allSatisfy(numbers.contains), "containers.sockets")
            try require(Set(container.sockets).count == container.plan.sockets.count, "containers.sockets")
            for (field, id) in [("id", container.id), ("plan.id", container.plan.id)] {
                do throws(SpecError) { _ = try ContainerID(id) } catch {
                    throw .invalid("checkpoint.json: containers.\(field): \(error)")
                }
            }
        }
        try require(numbers.contains(nextTarget), "nextTarget")
        try require((1...UInt64(Self.highestNumber)).contains(nextStream), "nextStream")
        try require((0...Int(Self.highestNumber)).contains(generation), "generation")
        try require(interfaces.count <= Self.mostInterfaces, "interfaces")
        for interface in interfaces {
            try require(interface.hardwareAddress.count == 6, "interfaces.hardwareAddress")
            try require((1...Tap.maximumQueues).contains(interface.pairs), "interfaces.pairs")
        }
    }
}
