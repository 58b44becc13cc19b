import CLinux
import Glibc
import LinuxSystem
import Testing
import VMMControl

@testable import Machine
@testable import Virtio

@Suite struct MachineStateTests {
    /// Every event in every state.
    @Test func eachStateHasItsEvents() {
        let end = MachineEnd.reset
        let states: [MachineState] = [.created, .running, .pausing, .paused, .ended(end), .stopped]
        let events: [MachineState.Event] = [.boot, .pause, .parked, .resume, .end(.poweredOff)]
        let possible: [String: MachineState] = [
            "created boot": .running, "running pause": .pausing, "pausing parked": .paused, "paused resume": .running,
            "running end": .ended(.poweredOff), "pausing end": .ended(.poweredOff), "paused end": .ended(.poweredOff),
        ]
        for state in states {
            #expect(state.after(.stop) == .stopped)
            for event in events { #expect(state.after(event) == possible["\(state) \(event)"], "\(state) \(event)") }
        }
        #expect(states.filter(\.isBooted) == [.running, .pausing, .paused])
    }

    @Test func aRefusalNamesTheState() throws {
        let lifecycle = MachineLifecycle()
        #expect(refusal { try lifecycle.apply(.resume) } == "resume: the machine is created")
        try lifecycle.apply(.boot)
        #expect(refusal { try lifecycle.apply(.boot) } == "boot: the machine is running")
        #expect(
            refusal { try lifecycle.require("add device") { $0 == .created } } == "add device: the machine is running")
        try lifecycle.apply(.end(.poweredOff))
        #expect(refusal { try lifecycle.apply(.end(.reset)) }.contains("ended (the guest powered off)"))
        #expect(refusal { try lifecycle.apply(.pause) } == "pause: the machine is ended (the guest powered off)")
    }
}

/// A machine in this process that runs a tiny guest, with its loop on a thread.
final class TinyVMM {
    let vmm: VMM
    let tasks: LoopTasks
    let end: Promise<MachineEnd>
    private let loop: EventLoop

    /// A machine that runs `code`.
    convenience init(_ code: [UInt8], vcpus: Int = 1) throws {
        try self.init(vcpus: vcpus)
        let kernel = try OwnedDescriptor.memory("kernel", size: 0)
        let elf = TinyGuest.elf(code)
        #expect(write(kernel.raw, elf, elf.count) == elf.count)
        _ = try vmm.boot(BootImage(kernel: SharedDescriptor(kernel), initramfs: nil, commandLine: []))
    }

    /// A machine that has not been booted.
    init(vcpus: Int = 1) throws {
        let map = try MemoryMap(size: 64 << 20)
        let file = SharedDescriptor(try OwnedDescriptor.memory("tiny guest", size: Int64(map.size)))
        let kvm = try KVM(device: SharedDescriptor(OwnedDescriptor.open("/dev/kvm", O_RDWR)))
        let loop = try EventLoop()
        self.loop = loop
        tasks = try LoopTasks(loop)
        let end = try Promise<MachineEnd>()
        self.end = end
        vmm = try VMM(kvm, map: map, memoryFile: file, vcpus: vcpus, loop: tasks, onEnd: { end.settle($0) })
        let (vmm, tasks) = (vmm, tasks)
        try startThread("loop") {
            do { try loop.run() } catch { Issue.record("\(error)") }
            withExtendedLifetime((vmm, tasks)) {}
        }
    }

    deinit {
        vmm.stop()
        loop.stop()
    }

    /// The number at the guest's mark.
    var mark: UInt64 {
        vmm.vm.memory.withBytes(at: TinyGuest.mark, count: 8) { $0.loadUnaligned(as: UInt64.self) } ?? .max
    }

    /// Pauses, and waits until that is done.
    func pause() throws {
        let done = try Promise<Result<Void, MachineError>>()
        try vmm.pause { done.settle($0) }
        try #require(done.wait(timeout: .seconds(5)), "the vCPUs were not parked").get()
    }
}

@Suite(.serialized, .enabled(if: TinyKVM.isReady, "\(TinyKVM.obstacle ?? "")")) struct PauseTests {
    @Test func aPausedGuestStandsStillAndGoesOn() throws {
        let machine = try TinyVMM(TinyGuest.count, vcpus: 2)
        for _ in 0..<50 {
            let begin = machine.mark
            #expect(eventually { machine.mark > begin })
            try machine.pause()
            #expect(machine.vmm.state == .paused)
            let paused = machine.mark
            usleep(2000)
            #expect(machine.mark == paused)
            try machine.vmm.resume()
            #expect(machine.vmm.state == .running)
        }
        let last = machine.mark
        #expect(eventually { machine.mark > last })
        #expect(machine.end.current == nil)
    }

    @Test func aHaltedGuestIsPausedToo() throws {
        let machine = try TinyVMM(TinyGuest.wait, vcpus: 4)
        for _ in 0..<20 {
            try machine.pause()
            try machine.vmm.resume()
        }
        #expect(machine.vmm.state == .running)
    }

    @Test func aPausedMachineCanBeStopped() throws {
        let machine = try TinyVMM(TinyGuest.count, vcpus: 2)
        try machine.pause()
        #expect(refusal { try machine.vmm.pause { _ in } } == "pause: the machine is paused")
        machine.vmm.stop()
        #expect(machine.vmm.state == .stopped)
        #expect(refusal { try machine.vmm.resume() } == "resume: the machine is stopped")
        let stopped = machine.mark
        usleep(20_000)
        #expect(machine.mark == stopped)
    }

    /// The instruction after the one that turns the machine off is not executed.
    @Test func aMachineThatIsTurnedOffStopsAtOnce() throws {
        for _ in 0..<20 {
            let machine = try TinyVMM(TinyGuest.powerOff)
            #expect(machine.end.wait(timeout: .seconds(5)) == .poweredOff)
            #expect(machine.vmm.state == .ended(.poweredOff))
            usleep(5000)
            #expect(machine.mark == 0)
        }
    }
}

@Suite(.serialized, .enabled(if: MachineProcess.isPossible, "needs root, /dev/kvm and martlet-vmm"))
struct MachineRequestTests {
    /// The vCPUs are in the middle of accesses that wait for the loop, all the time.
    @Test(.timeLimit(.minutes(1))) func aBusyMachineIsPaused() throws {
        let machine = try MachineProcess()
        try machine.make(vcpus: 2)
        for _ in 0..<8 { try machine.client.addEntropy().wait() }
        #expect(refusal { try machine.client.pause() } == "pause: the machine is created")
        try machine.boot(TinyGuest.elf(TinyGuest.storm))
        #expect(refusal { try machine.client.resume() } == "resume: the machine is running")
        for _ in 0..<50 {
            try machine.client.pause()
            #expect(refusal { try machine.client.pause() } == "pause: the machine is paused")
            try machine.client.resume()
        }
        try machine.client.pause()
        #expect(machine.child.ended == nil && machine.events.all.isEmpty)
        // The host ends a paused machine as any other.
        machine.child.signal(SIGKILL)
        #expect(machine.child.waitForEnd(timeout: .seconds(5)) != nil)
    }

    private func interface(_ number: UInt8) throws -> (ours: SharedDescriptor, theirs: SharedDescriptor, [UInt8]) {
        let (ours, theirs) = try SharedDescriptor.socketPair(SOCK_SEQPACKET)
        try theirs.setNonBlocking(true)
        return (ours, theirs, [2, 0, 0, 0, 0, number])
    }

    /// A machine goes on in another process, with its interfaces in the slots where they were, and with no other ones.
    @Test(.timeLimit(.minutes(1))) func aMachineIsRestoredWithItsInterfaces() throws {
        let first = try MachineProcess()
        try first.make()
        try first.client.addEntropy().wait()
        try first.boot(TinyGuest.elf(TinyGuest.wait))
        var ends: [SharedDescriptor] = []
        func add(_ machine: MachineProcess, _ number: UInt8) throws {
            let (ours, theirs, address) = try interface(number)
            ends.append(ours)
            try machine.client.addNetwork(queues: [theirs.raw], hardwareAddress: address).wait()
        }
        for number in [1, 2, 3] as [UInt8] { try add(first, number) }
        try first.client.removeNetwork(hardwareAddress: [2, 0, 0, 0, 0, 1])
        let state = SharedDescriptor(try OwnedDescriptor.memory("state", size: 0))
        let memory = SharedDescriptor(try OwnedDescriptor.memory("memory", size: 64 << 20))
        #expect(
            refusal { _ = try first.client.save(state: state.raw, memory: memory.raw) }
                == "save: the machine is running")
        try first.client.pause()
        #expect(try first.client.save(state: state.raw, memory: memory.raw) > 1000)
        try first.client.resume()

        func restore(_ interfaces: [UInt8]) throws -> MachineProcess {
            let machine = try MachineProcess()
            try machine.make(memory: memory.raw)
            try machine.client.addEntropy().wait()
            for number in interfaces { try add(machine, number) }
            try machine.client.restore(state: state.raw).wait()
            return machine
        }
        #expect(refusal { _ = try restore([2]) }.contains("02:00:00:00:00:03, which is missing"))
        #expect(refusal { _ = try restore([2, 3, 4]) }.contains("without a network interface 02:00:00:00:00:04"))
        // In any order.
        let second = try restore([3, 2])
        #expect(second.events.all == [.ready])
        try second.client.removeNetwork(hardwareAddress: [2, 0, 0, 0, 0, 2])
        try add(second, 5)
        try second.client.pause()
        #expect(first.events.all.isEmpty && first.child.ended == nil)
    }

    /// All slots are taken, then interfaces go and others come, over and over; meanwhile the guest writes to all registers.
    @Test(.timeLimit(.minutes(1)), arguments: [TinyGuest.wait, TinyGuest.storm])
    func interfacesAreReplaced(guest: [UInt8]) throws {
        let machine = try MachineProcess()
        try machine.make()
        try machine.boot(TinyGuest.elf(guest))
        func add(_ number: UInt8) throws {
            let (_, theirs, address) = try interface(number)
            try machine.client.addNetwork(queues: [theirs.raw], hardwareAddress: address).wait()
        }
        func remove(_ number: UInt8) throws {
            try machine.client.removeNetwork(hardwareAddress: [2, 0, 0, 0, 0, number])
        }
        // KVM has a thread of its own in the process from the first run on.
        try add(100)
        try remove(100)
        usleep(300_000)
        let (threads, descriptors) = (machine.threads, machine.descriptors)
        let slots: UInt8 = 12
        for number in 0..<slots { try add(number) }
        #expect(refusal { try add(slots) }.contains("no free MMIO slot"))
        #expect(machine.threads > threads)
        for round in 0..<50 as Range<UInt8> {
            try remove(round)
            try add(round + slots)
        }
        #expect(refusal { try remove(1) } == "the machine has no network interface 02:00:00:00:00:01")
        for number in 50..<50 + slots { try remove(number) }
        #expect(eventually { machine.threads == threads }, "\(machine.threads) threads, not \(threads)")
        #expect(eventually { machine.descriptors == descriptors }, "\(machine.descriptors), not \(descriptors)")
        #expect(machine.child.ended == nil && machine.events.all.isEmpty, "\(machine.events.all)")
    }
}
