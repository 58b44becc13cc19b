import GuestSystem
import OCISpec
import Testing

@testable import ContainerPlan

@Suite struct ResourcePlanTests {
    /// `file=value`, in order.
    private func written(
        current: Linux.Resources = .init(), _ change: (inout Linux.Resources) -> Void
    ) throws -> [String] {
        var resources = Linux.Resources()
        change(&resources)
        return try ResourcePlan(resources, current: current).settings.map { "\($0.file)=\($0.value)" }
    }

    private func memory(_ limit: Int64?, swap: Int64? = nil) -> Linux.Resources.Memory {
        var memory = Linux.Resources.Memory()
        (memory.limit, memory.swap) = (limit, swap)
        return memory
    }

    private func refusal(_ change: (inout Linux.Resources) -> Void) -> AgentFailure? {
        #expect(throws: AgentFailure.self) { try written(change) }
    }

    @Test(
        arguments: [
            (2, 1), (0, 1), (100, 17), (1024, 100), (2048, 174), (262_144, 10_000), (1_000_000, 10_000),
        ] as [(UInt64, UInt64)])
    func sharesBecomeWeights(shares: UInt64, weight: UInt64) {
        #expect(ResourcePlan.weight(shares: shares) == weight)
    }

    @Test func limitsBecomeFiles() throws {
        let settings = try written {
            $0.pids = .init(limit: 100)
            $0.memory = memory(1 << 20, swap: 3 << 20)
            $0.memory?.reservation = 1 << 19
            var cpu = Linux.Resources.CPU()
            (cpu.shares, cpu.quota, cpu.period, cpu.burst) = (1024, 50_000, 100_000, 10)
            (cpu.cpus, cpu.mems) = ("0-1", "0")
            $0.cpu = cpu
            var rdma = Linux.Resources.Rdma()
            (rdma.hcaHandles, rdma.hcaObjects) = (3, 4)
            $0.rdma = ["mlx5_1": rdma]
            $0.unified = ["memory.high": "9", "cpu.idle": "0"]
        }
        #expect(
            settings == [
                "pids.max=100", "memory.swap.max=2097152", "memory.max=1048576", "memory.low=524288", "cpu.weight=100",
                "cpu.max=50000 100000", "cpu.max.burst=10", "cpuset.cpus=0-1", "cpuset.mems=0",
                "rdma.max=mlx5_1 hca_handle=3 hca_object=4", "cpu.idle=0", "memory.high=9",
            ])
    }

    /// As docker, podman, ctr and the CRI plugin write them for a container without limits.
    @Test func whatLimitsNothingWritesNothing() throws {
        let settings = try written {
            $0.memory = memory(0, swap: 0)
            $0.memory?.reservation = 0
            $0.memory?.kernel = 0
            $0.memory?.kernelTCP = 0
            $0.memory?.disableOOMKiller = false
            var cpu = Linux.Resources.CPU()
            (cpu.shares, cpu.quota, cpu.period, cpu.realtimeRuntime, cpu.realtimePeriod) = (0, 0, 0, 0, 0)
            $0.cpu = cpu
            $0.blockIO = .init()
            $0.blockIO?.weight = 0
            $0.hugepageLimits = [.init(pageSize: "2MB", limit: 0)]
            $0.network = .init()
        }
        #expect(settings.isEmpty)
    }

    @Test func noLimitIsMax() throws {
        #expect(try written { $0.memory = memory(-1) } == ["memory.swap.max=max", "memory.max=max"])
        #expect(try written { $0.pids = .init(limit: -1) } == ["pids.max=max"])
        #expect(
            try written {
                $0.cpu = .init()
                $0.cpu?.quota = -1
            } == ["cpu.max=max"])
    }

    @Test func swapIsCountedWithMemory() throws {
        #expect(try written { $0.memory = memory(5, swap: 5) } == ["memory.swap.max=0", "memory.max=5"])
        #expect(refusal { $0.memory = memory(5, swap: 4) }?.message.contains("memory.swap: 4 is less") == true)
        #expect(refusal { $0.memory = memory(nil, swap: 4) }?.message.contains("without a memory limit") == true)
        // A change of swap alone is measured by the limit that holds.
        var current = Linux.Resources()
        current.memory = memory(3)
        #expect(try written(current: current) { $0.memory = memory(nil, swap: 4) } == ["memory.swap.max=1"])
    }

    @Test func anIdleGroupHasNoWeight() throws {
        #expect(
            try written {
                $0.cpu = .init()
                $0.cpu?.idle = 1
                $0.cpu?.shares = 512
            } == ["cpu.idle=1"])
    }

    @Test func whatCannotActIsRefusedByName() {
        #expect(
            refusal {
                $0.memory = .init()
                $0.memory?.swappiness = 60
            }?.message == "linux.resources.memory.swappiness: the guest has no swap")
        #expect(refusal { $0.unified = ["../x": "1"] }?.message.contains("unified: \"../x\"") == true)
    }

    @Test func listsOfProcessorsAreRead() {
        #expect(CPUList("0-2,7")?.numbers == [0, 1, 2, 7])
        #expect(CPUList("3\n")?.numbers == [3])
        for wrong in ["x", "3-1", "1-2-3", "-1", "0-99999999"] { #expect(CPUList(wrong) == nil) }
    }
}
