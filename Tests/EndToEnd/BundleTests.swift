import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    /// Bundles as other programs make them, not changed at all.
    @Suite struct BundleTests {
        enum Tool: String, CaseIterable {
            case runc, crun, umoci
            /// What `oci-runtime-tool generate` writes without options.
            case generate

            /// Makes a bundle in a directory, which is there.
            var script: String {
                switch self {
                case .runc: "runc spec --bundle ."
                case .crun: "crun spec"
                case .generate: "generate >config.json"
                case .umoci:
                    """
                    umoci init --layout ../image && umoci new --image ../image:it
                    umoci unpack --image ../image:it ../layer
                    mv rootfs/* ../layer/rootfs/ && umoci repack --image ../image:it ../layer
                    umoci config --image ../image:it --config.cmd sh
                    rm -r rootfs && umoci unpack --image ../image:it unpacked
                    mv unpacked/* .
                    """
                }
            }

            /// What each writes for its containers.
            var hostname: String { ["umoci": "umoci-default", "generate": "mrsdalloway"][rawValue] ?? rawValue }
            var capabilities: UInt64 { self == .generate ? 0xa804_25fb : 0x2000_0420 }
        }

        /// Where the programs are, but for runc, which is this machine's.
        private static let programs: String = {
            do {
                let made = try Command("\(Lab.repository)/scripts/bundle-tools.sh", []).finish(within: .seconds(900))
                if !made.errorText.isEmpty { print(made.errorText) }
                return made.text.trimmed
            } catch {
                print("bundles of other programs are not tried: \(error)")
                return "/"
            }
        }()

        private static let tools = Tool.allCases.filter { tool in
            let path = tool == .runc ? Lab.program("runc") : "\(programs)/\(tool)"
            if let path, access(path, X_OK) == 0 { return true }
            print("no bundle of \(tool) is tried: the program is missing")
            return false
        }

        @Test(arguments: tools) func itRuns(_ tool: Tool) throws {
            try Scene.play { scene in
                let bundle = try scene.makeDirectory("bundle")
                _ = try Rootfs.busybox.place(in: bundle)
                try Command.shell("PATH=\(Self.programs):$PATH; cd \(bundle); \(tool.script)")
                let pty = try Pty(rows: 24, columns: 80)
                let screen = try Collector(pty.master)
                let run = try Command(
                    "setsid", ["-c", Lab.martlet] + scene.runArguments(bundle: bundle),
                    input: .descriptor(pty.slave), output: .descriptor(pty.slave))
                // Each runs a shell; but for one, at a terminal.
                if tool != .generate { try screen.wait(for: "# ") }
                var line = Array("echo is $(hostname) $(grep CapEff /proc/self/status); exit 3\r".utf8)
                #expect(write(pty.master.raw, &line, line.count) == line.count)
                let outcome = try run.finish()
                let set = String(tool.capabilities, radix: 16)
                let digits = String(repeating: "0", count: 16 - set.count) + set
                #expect(outcome.code == 3, "\(outcome.errorText)")
                #expect(screen.text.contains("is \(tool.hostname) CapEff: \(digits)"), "\(screen.text)")
            }
        }
    }
}
