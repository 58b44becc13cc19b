import LinuxSystem
import OCISpec

/// What a checkpoint says of its pod, beside the state of the machine, of its memory and of its file server.
struct Checkpoint: Sendable, Equatable, Codable {
    /// Changes with every change of what is in a checkpoint.
    static let currentVersion = 1

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

    var version = Checkpoint.currentVersion
    /// RFC 3339, with nanoseconds, UTC.
    var created: String
    var shape: TemplateShape
    /// The container as its agent knows it.
    var container: SandboxPlan.Container
    var terminal: Bool
    /// The numbers by which the agent knows the container's sockets of the host, in their order.
    var sockets: [UInt32]
    /// In the order of the plan's mounts.
    var shares: [Share]
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
        try require(sockets.allSatisfy(numbers.contains), "sockets")
        try require(Set(sockets).count == container.sockets.count, "sockets")
        try require(numbers.contains(nextTarget), "nextTarget")
        try require((1...UInt64(Self.highestNumber)).contains(nextStream), "nextStream")
        try require((0...Int(Self.highestNumber)).contains(generation), "generation")
        try require(shares.count <= Self.mostShares, "shares")
        try require(interfaces.count <= Self.mostInterfaces, "interfaces")
        for interface in interfaces {
            try require(interface.hardwareAddress.count == 6, "interfaces.hardwareAddress")
            try require((1...Tap.maximumQueues).contains(interface.pairs), "interfaces.pairs")
        }
        do throws(SpecError) { _ = try ContainerID(container.id) } catch {
            throw .invalid("checkpoint.json: container.id: \(error)")
        }
    }
}
