import Glibc
import Hypervisor
import LinuxSystem
import Logging
import VMMControl

/// Gives a running machine more vCPUs and memory, and takes them back.
struct MachineResize: Sendable {
    let machine: any VirtualMachine
    let agent: GuestAgent
    /// What it has from the start on, and the most that it can have.
    let description: VMConfiguration
    let logger: Logger

    /// How long a guest may take for what it is given, as long as it gets on with it, and for a vCPU that it is to let go of.
    private static let stall = Duration.seconds(10)
    private static let ejectLimit = Duration.seconds(3)
    private static let pause: UInt32 = 10_000
    /// How long a process of the machine may take for its answer.
    private static let answerLimit = Duration.seconds(5)

    /// Has the guest use at least so much.
    ///
    /// - Parameter before: what it has.
    /// - Throws: `SandboxError.failed` where the guest does not take it. It is asked for what it had before then.
    func grow(from before: ProcessStatistics.Hotplug, to size: MachineSize) async throws {
        do {
            try await onThread("plug") {
                if memory(of: size) > before.requested { try machine.setMemory(bytes: memory(of: size)) }
                if size.vcpus > before.vcpus { try machine.setVCPUs(size.vcpus) }
                if memory(of: size) > before.plugged { try waitForMemory(of: size) }
            }
            if size.vcpus > before.vcpus { try await agent.useProcessors(size.vcpus) }
        } catch {
            logger.warning("the pod's machine stays as it was: \(error)")
            try? await onThread("unplug") {
                try machine.setMemory(bytes: before.requested)
                try machine.setVCPUs(Int(before.vcpus))
            }
            throw error
        }
    }

    /// Asks the guest to let go of what is more. It lets go of memory in its own time, and keeps what it can't do without.
    func shrink(to size: MachineSize) async throws {
        let before = try await state()
        if size.vcpus < before.vcpus { try await agent.useProcessors(size.vcpus) }
        try await onThread("unplug") {
            if memory(of: size) < before.requested { try machine.setMemory(bytes: memory(of: size)) }
            guard size.vcpus < before.vcpus else { return }
            try machine.setVCPUs(size.vcpus)
            try waitForProcessors(of: size)
        }
    }

    /// What a machine has, or is getting, that is in such a state.
    func size(_ state: ProcessStatistics.Hotplug) -> MachineSize {
        MachineSize(vcpus: Int(state.vcpus), memoryMiB: description.memoryMiB + Int(state.requested >> 20))
    }

    /// What of the machine comes and goes, as it is now.
    func state() async throws -> ProcessStatistics.Hotplug {
        try await onThread("machine size") { try machine.hotplug(timeout: Self.answerLimit) }
    }

    /// Bytes beside those that the machine has from the start on, in whole blocks.
    private func memory(of size: MachineSize) -> UInt64 {
        let block = VMConfiguration.memoryBlockMiB
        let more = max(0, size.memoryMiB - description.memoryMiB)
        return UInt64(min((more + block - 1) / block * block, description.hotplugMiB)) << 20
    }

    private func waitForMemory(of size: MachineSize) throws {
        let wanted = memory(of: size)
        var (plugged, since) = (UInt64(0), ContinuousClock.now)
        while true {
            let now = try machine.hotplug(timeout: Self.answerLimit).plugged
            if now >= wanted { return }
            if now > plugged { (plugged, since) = (now, .now) }
            guard ContinuousClock.now - since < Self.stall else {
                throw SandboxError.failed(
                    "the guest uses \(now >> 20) of \(wanted >> 20) MiB more memory that it was given, and takes no "
                        + "more (its kernel needs CONFIG_VIRTIO_MEM, and memory for what it notes about each page)")
            }
            usleep(Self.pause)
        }
    }

    private func waitForProcessors(of size: MachineSize) throws {
        let end = ContinuousClock.now + Self.ejectLimit
        while try machine.hotplug(timeout: Self.answerLimit).vcpus > size.vcpus {
            guard ContinuousClock.now < end else {
                return logger.warning("the guest does not let go of vCPUs: it was asked to keep \(size.vcpus)")
            }
            usleep(Self.pause)
        }
    }
}
