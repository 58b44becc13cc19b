import Glibc
import LinuxSystem
import Testing

@testable import Hypervisor

/// The cause of a machine's end, from what was seen of it.
@Suite struct VMEndTests {
    private func cause(_ signs: [VMEnd], console lines: [String] = ["up"]) throws -> VMEnd {
        let console: Console
        do {
            let (read, write) = try SharedDescriptor.pipe()
            for line in lines { try check("write", "", Glibc.write(write.raw, line + "\n", line.utf8.count + 1)) }
            console = try Console("test", source: read) { _ in }
        }
        console.waitForEnd(timeout: .seconds(5))
        return .cause(of: signs, console: console) { "output of \($0)" }
    }

    private let exited = VMEnd.processEnded(name: "qemu", how: .exited(1))
    private let killed = VMEnd.processEnded(name: "martlet-device files", how: .signaled(SIGKILL))
    private let broken = VMEnd.deviceBroken(name: "vsock", reason: "loop")
    private let reset = VMEnd.guestCrashed("the guest reset the machine")
    private let panic = "[    1.0] Kernel panic - not syncing: x"

    @Test func theMostTellingSignIsTheCause() throws {
        let decided = VMEnd.ended("as asked")
        #expect(try cause([decided, killed, .poweredOff]) == decided)
        // What the host decides after a first sign is too late.
        #expect(try cause([exited, decided, killed]) == killed)
        #expect(try cause([exited, .poweredOff], console: [panic]) == .poweredOff)
        #expect(try cause([exited, reset, broken], console: [panic]) == .guestCrashed("Kernel panic - not syncing: x"))
        #expect(try cause([exited, reset]) == reset)
        #expect(try cause([exited, broken], console: [panic]) == broken)
        #expect(
            try cause([.machineFailed("x"), exited], console: [panic])
                == .guestCrashed("Kernel panic - not syncing: x"))
        #expect(try cause([exited, .machineFailed("x")]) == .machineFailed("x"))
        #expect(try cause([exited]) == .processEnded(name: "qemu", how: .exited(1), output: "output of qemu"))
    }

    @Test func aGuestThatPrintedNothingIsSaidToHavePrintedNothing() throws {
        #expect(
            try cause([reset], console: [])
                == .guestCrashed("the guest reset the machine before it printed anything"))
    }

    @Test func aProcessThatWasKilledIsNotOneThatSaysSo() throws {
        // The text of an end decides nothing.
        let named = VMEnd.processEnded(name: "was killed", how: .exited(0))
        #expect(try cause([named, .poweredOff]) == .poweredOff)
    }
}
