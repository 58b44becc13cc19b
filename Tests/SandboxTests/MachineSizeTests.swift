import Hypervisor
import OCISpec
import Testing

@testable import Sandbox

/// What containers' limits make of a pod's machine.
@Suite struct MachineSizeTests {
    private func limits(memory: Int64? = nil, quota: Int64? = nil, period: UInt64? = nil) -> ContainerLimits {
        var limits = ContainerLimits(nil)
        limits.change(to: resources(memory: memory, quota: quota, period: period))
        return limits
    }

    private func resources(memory: Int64? = nil, quota: Int64? = nil, period: UInt64? = nil) -> Linux.Resources {
        var resources = Linux.Resources()
        if let memory {
            resources.memory = .init()
            resources.memory?.limit = memory
        }
        if quota != nil || period != nil {
            resources.cpu = .init()
            resources.cpu?.quota = quota
            resources.cpu?.period = period
        }
        return resources
    }

    @Test func limitsAddUp() {
        let all = [
            limits(memory: 100 << 20, quota: 50_000), limits(memory: (28 << 20) + 1, quota: 250_000, period: 100_000),
            limits(), limits(memory: -1, quota: -1),
        ]
        #expect(MachineSize(of: all, overheadMiB: 64) == MachineSize(vcpus: 4, memoryMiB: 100 + 29 + 64))
        // Without a limit the machine is as it was planned.
        #expect(MachineSize(of: [limits()], overheadMiB: 64) == MachineSize(vcpus: 0, memoryMiB: 0))
        #expect(
            MachineSize(vcpus: 1, memoryMiB: 512).union(MachineSize(vcpus: 4, memoryMiB: 200))
                == MachineSize(vcpus: 4, memoryMiB: 512))
    }

    /// A container that names CPUs must find them, however many its quota allows.
    @Test func theCPUsThatAContainerNamesAreThere() {
        func named(_ list: String) -> ContainerLimits {
            var resources = Linux.Resources()
            resources.cpu = .init()
            resources.cpu?.cpus = list
            return ContainerLimits(resources)
        }
        let expected = [("", 0), ("0", 1), ("1", 2), ("0-3,7", 8), ("7,0-3", 8), ("x", 0), ("99999999999999999999", 0)]
        for (list, count) in expected { #expect(Sizing.cpus(upToLastOf: list) == count, "\(list)") }
        #expect(MachineSize(of: [named("0-2"), named("1"), limits(quota: 100_000)], overheadMiB: 64).vcpus == 3)
        #expect(MachineSize(of: [named("0"), limits(quota: 400_000)], overheadMiB: 64).vcpus == 4)
        var limits = named("0-2")
        limits.change(to: resources(quota: 100_000))
        #expect(limits.lastCPU == 3, "an update leaves it")
    }

    @Test func noNumberOfAnEngineTraps() {
        let extreme = [
            limits(memory: .max, quota: .max, period: 1), limits(memory: (1 << 60) - 1, quota: .max, period: .max),
            limits(memory: .min, quota: .min, period: 0),
        ]
        let size = MachineSize(of: extreme + extreme + extreme, overheadMiB: 64)
        #expect(size.memoryMiB > 1 << 40)
    }

    @Test func whatAnUpdateLeavesOutStays() {
        var limits = limits(memory: 64 << 20, quota: 300_000)
        limits.change(to: resources(quota: 100_000))
        #expect(limits.memory == 64 << 20 && limits.cpus == 1)
        limits.change(to: resources(memory: 0, quota: 0, period: 50_000))
        #expect(limits.memory == 64 << 20 && limits.cpus == 2)
        limits.change(to: resources(memory: -1, quota: -1))
        #expect(limits.memory == 0 && limits.cpus == 0)
    }

    @Test func theMachineHasRoomInWholePieces() throws {
        var machine = VMConfiguration(
            name: "m", vcpus: 1, memoryMiB: 512, kernel: "/k", initramfs: nil, kernelArguments: [])
        #expect(machine.hotplugMiB == 0)
        machine.maximumMemoryMiB = 512 + 127
        #expect(machine.hotplugMiB == 0)
        machine.maximumMemoryMiB = 4096
        #expect(machine.hotplugMiB == 3584)
        machine.maximumMemoryMiB = 1 << 20
        #expect(machine.hotplugMiB == 64 << 10)
        var configuration = Configuration()
        configuration.vm.maximumMemoryMiB = 1024
        configuration.vm.maximumVCPUs = 1
        machine.makeRoom(configuration)
        #expect(machine.maximumMemoryMiB == 1024 && machine.maximumVCPUs == 1 && machine.hotplugMiB == 512)
        machine.memoryMiB = 2048
        machine.makeRoom(configuration)
        #expect(machine.maximumMemoryMiB == 2048 && machine.hotplugMiB == 0)
    }
}
