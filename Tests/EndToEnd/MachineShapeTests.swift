import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Processors and memory, as configured.
    @Suite struct MachineShapeTests {
        @Test(arguments: Lab.everything ? [1, 2, 4, 8] : [2])
        func everyProcessorIsOnline(count: Int) throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(script: "busybox nproc; busybox cat /sys/devices/system/cpu/online")
                let outcome = try scene.run(
                    bundle: bundle, global: scene.configuration("vm.vcpus = \(count)"), within: .seconds(120))
                #expect(outcome.code == 0, "\(outcome.errorText)")
                #expect(outcome.lines == ["\(count)", count == 1 ? "0" : "0-\(count - 1)"], "\(outcome.text)")
            }
        }

        /// A program finds the instruction sets of the level, and none above it.
        @Test func aGuestHasTheInstructionSetsOfItsLevel() throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(script: "busybox grep -m 1 ^flags /proc/cpuinfo")
                let outcome = try scene.run(
                    bundle: bundle, global: scene.configuration("vm.cpu = \"x86-64-v2\""), within: .seconds(120))
                #expect(outcome.code == 0, "\(outcome.errorText)")
                let flags = Set(outcome.text.split(whereSeparator: \.isWhitespace).map(String.init))
                #expect(flags.isSuperset(of: ["sse4_2", "popcnt", "cx16", "lahf_lm"]), "\(outcome.text)")
                #expect(flags.isDisjoint(with: ["avx", "avx2", "fma", "bmi1", "bmi2", "movbe", "abm", "sha_ni"]))
                let refused = try scene.run(bundle: bundle, global: scene.configuration("vm.cpu = \"x86-64-v9\""))
                #expect(refused.code == 1 && refused.errorText.contains("\"x86-64-v9\" is none of"))
            }
        }

        static let isStock = Lab.guest.hasSuffix("/stock")

        @Test func theLeastMemoryIsEnoughAndLessIsRefused() throws {
            let least = Self.isStock ? 128 : 96
            try Scene.play { scene in
                let bundle = try scene.bundle(args: ["true"])
                let outcome = try scene.run(
                    bundle: bundle, global: scene.configuration("vm.memory_mib = \(least)"), within: .seconds(120))
                #expect(outcome.code == 0, "\(outcome.errorText)")
                let refused = try scene.run(
                    bundle: bundle, global: scene.configuration("vm.memory_mib = \(least - 1)"))
                #expect(refused.code == 1)
                #expect(
                    refused.errorText.contains("vm.memory_mib") && refused.errorText.contains("\(least)"),
                    "\(refused.errorText)")
            }
        }

        /// 512 MiB, and 5 GiB, which lie on both sides of the gap for devices.
        @Test(arguments: Lab.variable("MARTLET_TEST_LARGE") == nil ? [512] : [512, 5120])
        func memoryHoldsWhatIsWrittenToIt(mebibytes: Int) throws {
            try Scene.play { scene in
                // All but what the kernel, the agent and the page cache need, and the kernel for each page; the distribution's
                // keeps more of it free.
                let pages = mebibytes / (Lab.guest == KernelTests.stockGuest ? 16 : 32)
                let bundle = try scene.bundle(args: ["/bin/memory", "\(mebibytes - 160 - pages)"])
                try Program.install("memory", in: bundle)
                let outcome = try scene.run(
                    bundle: bundle, global: scene.configuration("vm.memory_mib = \(mebibytes)"), within: .seconds(300))
                #expect(outcome.code == 0, "\(outcome.errorText)")
                #expect(outcome.lines == ["ok"], "\(outcome.text)")
            }
        }

        @Test func outOfMemoryEndsTheProcessAndNotTheMachine() throws {
            try Scene.play { scene in
                let bundle = try scene.bundle(
                    script: "/bin/memory 4096; echo \"then $?\"; busybox cat /proc/uptime >/dev/null && echo alive")
                try Program.install("memory", in: bundle)
                let outcome = try scene.run(
                    bundle: bundle, global: scene.configuration("vm.memory_mib = 128"), within: .seconds(120))
                #expect(outcome.lines == ["then 137", "alive"], "\(outcome.text)")
                #expect(outcome.code == 0, "\(outcome.errorText)")
                #expect(outcome.errorText.contains("out of memory (OOM)"), "\(outcome.errorText)")
            }
        }
    }
}
