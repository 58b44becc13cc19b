import CLinux
import Glibc
import LinuxSystem
import Logging
import Synchronization
import Testing

@testable import Hypervisor

/// What these tests need.
private enum InstalledQEMU {
    static let path = HostFacts.findProgram("qemu-system-x86_64")
    static let isUsable = geteuid() == 0 && path != nil && (try? Programs.own("martlet-device")) != nil
}

/// A real QEMU with guests of a few instructions.
@Suite(
    .serialized, .timeLimit(.minutes(2)), .enabled(if: InstalledQEMU.isUsable, "needs root, QEMU and martlet-device"))
final class QEMUMachineTests {
    /// A guest's kernel.
    private let path = "/tmp/martlet-tiny-\(getpid())"

    deinit { unlink(path) }

    private func launch(_ image: [UInt8]) throws -> any VirtualMachine {
        try TinyPVHGuest.file(image, path)
        let driver = QEMUDriver(
            executable: try #require(InstalledQEMU.path), accelerator: .tcg, logger: Logger(label: "test"))
        return try driver.launch(
            VMConfiguration(
                name: "tiny", vcpus: 1, memoryMiB: 64, kernel: path, initramfs: nil, kernelArguments: [],
                hasFiles: false))
    }

    @Test func aGuestThatDiesBeforeItsConsoleIsUpEndsWithAReason() async throws {
        let begin = ContinuousClock.now
        let machine = try launch(TinyPVHGuest.tripleFault)
        #expect(machine.processes.map(\.name) == ["qemu", "martlet-device vsock"])
        #expect(await machine.end() == .guestCrashed("the guest reset the machine before it printed anything"))
        let took = ContinuousClock.now - begin
        #expect(took < .seconds(6), "took \(took)")
    }

    /// How many lines the guest has printed by now.
    private func lines(_ machine: any VirtualMachine) -> Int {
        let (first, lines) = machine.console.lines(from: 0)
        return first + lines.count
    }

    private func waitForMore(than count: Int, _ machine: any VirtualMachine) async throws {
        let deadline = ContinuousClock.now + .seconds(20)
        while lines(machine) <= count, ContinuousClock.now < deadline { try await Task.sleep(for: .milliseconds(10)) }
        #expect(lines(machine) > count)
    }

    @Test func aPausedMachineStandsStill() async throws {
        let machine = try launch(TinyPVHGuest.beat)
        #expect(machine.state == .running)
        #expect(throws: HypervisorError.self) { try machine.resume() }
        try await waitForMore(than: 2, machine)
        try machine.pause()
        #expect(machine.state == .paused)
        // What was on its way.
        try await Task.sleep(for: .milliseconds(200))
        let count = lines(machine)
        try await Task.sleep(for: .milliseconds(500))
        #expect(lines(machine) == count)
        try machine.resume()
        #expect(machine.state == .running)
        try await waitForMore(than: count, machine)
        try machine.pause()
        machine.kill(.ended("enough"))
        #expect(await machine.end() == .ended("enough"))
        #expect(machine.state == .ended(.ended("enough")))
        #expect(throws: HypervisorError.self) { try machine.pause() }
    }

    /// This guest lets go of nothing.
    @Test(.enabled(if: access("/dev/net/tun", R_OK | W_OK) == 0, "needs /dev/net/tun"))
    func aSlotThatTheGuestKeepsStaysTaken() async throws {
        let machine = try launch(TinyPVHGuest.beat)
        try await waitForMore(than: 2, machine)
        func add(_ number: UInt8) throws {
            let tap = try Tap("mtest\(number)", queues: 1)
            try machine.addNetwork(hardwareAddress: [2, 0, 0, 0, 0, number], queues: tap.queues.map(\.raw))
        }
        for number in 0..<UInt8(QEMUDriver.slotCount) { try add(number) }
        #expect(refusal { try add(9) } == "all 8 slots for network interfaces and disks are taken")
        try machine.removeNetwork(hardwareAddress: [2, 0, 0, 0, 0, 1])
        try machine.removeNetwork(hardwareAddress: [2, 0, 0, 0, 0, 99])
        // The tap is let go of all the same.
        #expect(if_nametoindex("mtest1") == 0)
        #expect(
            refusal { try add(9) }
                == "all 8 slots for network interfaces and disks are taken, 1 of them by devices that the guest has not let go of"
        )
        machine.kill(.ended("enough"))
        _ = await machine.end()
    }

    private func refusal(_ body: () throws -> Void) -> String {
        do { try body() } catch { return "\(error)" }
        return "done"
    }
}
