import CAgent
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem

extension Cgroup {
    /// Writes the plan's values, in its order; throws at the first that the kernel does not take, by the property's name.
    func apply(_ plan: ResourcePlan) throws(AgentFailure) {
        try Self.check("cpu.cpus", plan.processors, within: "/sys/devices/system/cpu/online", "processor")
        // A kernel without NUMA has one node and no such file.
        try Self.check("cpu.mems", plan.nodes, within: "/sys/devices/system/node/online", "memory node")
        if plan.checksUsage { try checkUsage(plan) }
        for setting in plan.settings {
            do {
                try writeText(setting.value, to: "\(path)/\(setting.file)")
            } catch {
                if error.errno == .noSuchFileOrDirectory || error.errno == .permissionDenied {
                    // The cgroup's directory takes no new files: EACCES is what opening a missing one with O_CREAT gives.
                    throw AgentFailure(.unimplemented, "\(setting.field): the guest's cgroups have no \(setting.file)")
                }
                throw AgentFailure(.invalidArgument, "\(setting.field): \(error)")
            }
        }
    }

    /// The kernel takes a processor that is not there, and then lets the group have all.
    private static func check(
        _ field: String, _ list: String, within file: String, _ kind: String
    ) throws(AgentFailure) {
        if list.isEmpty { return }
        guard let requested = CPUList(list) else {
            throw AgentFailure(.invalidArgument, "linux.resources.\(field): \"\(list)\" is not a list such as 0-3,7")
        }
        let online = ((try? readText(file)) ?? "0").split(separator: "\n").first ?? "0"
        let there = Set(CPUList(online)?.numbers ?? [])
        if let missing = requested.numbers.first(where: { !there.contains($0) }) {
            throw AgentFailure(
                .invalidArgument,
                "linux.resources.\(field): \(list): the guest has no \(kind) \(missing), only \(online)")
        }
    }

    private func checkUsage(_ plan: ResourcePlan) throws(AgentFailure) {
        guard let limit = plan.settings.first(where: { $0.file == "memory.max" }), let bytes = UInt64(limit.value),
            let used = number("memory.current"), used > bytes
        else { return }
        throw AgentFailure(.failedPrecondition, "\(limit.field): \(bytes) is less than the \(used) bytes in use")
    }

    /// Lets the rules decide which devices the group's processes use.
    func guardDevices(_ rules: DeviceRules) throws(AgentFailure) {
        try during("linux.resources.devices") {
            let program = DeviceProgram(rules)
            var log = [CChar](repeating: 0, count: 4096)
            let raw = martlet_agent_load_device_program(
                program.instructions, UInt32(program.instructions.count), &log, UInt32(log.count))
            if raw < 0 {
                let verifierOutput = String(
                    decoding: log.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
                throw SystemError.last("load the device program", verifierOutput)
            }
            let loaded = OwnedDescriptor(owning: raw)
            let directory = try open()
            try LinuxSystem.check(
                "attach the device program to", path, martlet_agent_attach_device_program(directory.raw, loaded.raw))
        }
    }
}
