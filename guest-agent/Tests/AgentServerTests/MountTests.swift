import AgentAPI
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem
import OCISpec
import TTRPC
import Testing

@testable import AgentServer

/// The mounts of real containers.
@Suite(.serialized, .enabled(if: AgentUnderTest.obstacle == nil, "\(AgentUnderTest.obstacle ?? "")"))
struct MountTests {
    /// As runc: targets that are links of the image are followed inside the root, and made where they lead nowhere.
    @Test(arguments: [false, true]) func targetsThatAreLinksOfTheImageAreMade(readOnly: Bool) async throws {
        try await AgentUnderTest.play { agent in
            let root = agent.directory + "/shares/root"
            #expect(symlink("../run/systemd/resolve/stub-resolv.conf", root + "/etc/resolv.conf") == 0)
            #expect(symlink("/realvar/run", root + "/var") == 0)
            #expect(symlink("../../../above", root + "/up") == 0)
            let source = agent.directory + "/resolv"
            let file = creat(source, 0o644)
            #expect(write(file, "served\n", 7) == 7)
            close(file)
            let script = """
                cat /etc/resolv.conf /run/systemd/resolve/stub-resolv.conf; readlink /etc/resolv.conf
                touch /var/x/f /up/g && ls /realvar/run/x /above
                """
            let result = try await agent.run(["sh", "-c", script], id: "l\(readOnly)") {
                $0.root?.readonly = readOnly
                $0.mounts += [
                    Mount(destination: "/etc/resolv.conf", source: source, options: ["bind", "ro"]),
                    Mount(destination: "/var/x", type: "tmpfs", source: "tmpfs"),
                    Mount(destination: "/up", type: "tmpfs", source: "tmpfs"),
                ]
            }
            #expect(
                result.output
                    == "served\nserved\n../run/systemd/resolve/stub-resolv.conf\n/above:\ng\n\n/realvar/run/x:\nf\n",
                "\(result.output)\(result.errors)")
            #expect(access("/realvar", F_OK) != 0 && access("/above", F_OK) != 0)
        }
    }

    /// Shares that come and go below one that propagates: a slave mount of the container's has them, a private one does not.
    @Test func sharesComeAndGoBelowOneThatPropagates() async throws {
        try await AgentUnderTest.play { agent in
            let shares = agent.directory + "/shares"
            for name in ["data", "data/sub", "later", "later/sub"] { #expect(mkdir("\(shares)/\(name)", 0o755) == 0) }
            #expect(creat("\(shares)/later/file", 0o644) >= 0)
            func share(_ name: String, _ index: Int, _ path: String = "") -> AgentStorage {
                .with {
                    ($0.driver, $0.source, $0.path, $0.propagates) = ("share", name, path, true)
                    $0.mountPoint = "/run/martlet/p/mounts/\(index)"
                }
            }
            func bound(_ destination: String, _ index: Int, _ option: String) -> Mount {
                let source = "/run/martlet/p/mounts/\(index)"
                return Mount(destination: destination, type: "bind", source: source, options: ["rbind", option])
            }
            let spec = agent.spec(["sleep", "1000"], id: "p") {
                $0.mounts += [bound("/slave", 0, "rslave"), bound("/private", 1, "rprivate")]
            }
            try await agent.create("p", spec, storages: [share("data", 0), share("data", 1)])
            try await agent.start("p")
            func mount(_ share: AgentStorage) async throws {
                _ = try await agent.client.mountShare(
                    .with {
                        $0.containerID = "p"
                        $0.share = share
                    })
            }
            func unmount(_ path: String) async throws {
                _ = try await agent.client.unmountShare(
                    .with { ($0.containerID, $0.mountPoint, $0.path) = ("p", "/run/martlet/p/mounts/0", path) })
            }
            func list() async throws -> String {
                try await agent.exec(["sh", "-c", "cd /slave; ls . sub sub/sub; ls /private/sub"], in: "p").output
            }
            let before = try await list()
            for index in [0, 1] { try await mount(share("later", index, "sub")) }
            #expect(try await list() == ".:\nsub\n\nsub:\nfile\nsub\n\nsub/sub:\n")
            // In one that came later, and over the whole.
            try await mount(share("later", 0, "sub/sub"))
            #expect(try await list() == ".:\nsub\n\nsub:\nfile\nsub\n\nsub/sub:\nfile\nsub\n")
            try await unmount("sub")
            #expect(try await list() == before)
            try await mount(share("later", 0))
            #expect(try await list().hasPrefix(".:\nfile\nsub\n"))
            try await unmount("")
            #expect(try await list() == before)
            for wrong in [share("later", 2, "sub"), share("later", 0, "../sub"), share("later", 0, "none")] {
                await #expect(throws: TTRPCError.self) { try await mount(wrong) }
            }
            await #expect(throws: TTRPCError.self) { try await unmount("sub") }
            try await agent.remove("p")
            #expect(access("\(shares)/later/file", F_OK) == 0)
        }
    }

    @Test func mountsAreMadeInTheirOrderAndMoreThanOnce() async throws {
        try await AgentUnderTest.play { agent in
            let source = agent.directory + "/twice"
            #expect(mkdir(source, 0o755) == 0 && mkdir(source + "/inner", 0o755) == 0)
            let bind = { Mount(destination: $0, source: source, options: ["rbind"]) }
            let tmpfs = { Mount(destination: $0, type: "tmpfs", source: "tmpfs") }
            let script = """
                touch /one/f && ls /two; touch /one/inner/g && ls /two/inner | wc -l
                ls /hidden; grep -c ' /hidden' /proc/self/mountinfo; touch /last/h && ls /one
                """
            let result = try await agent.run(["sh", "-c", script], id: "o") {
                $0.mounts += [
                    bind("/one"), bind("/two"), tmpfs("/one/inner"), tmpfs("/hidden/inner"), bind("/hidden"),
                    bind("/last"), tmpfs("/last"),
                ]
            }
            #expect(result.output == "f\ninner\n0\nf\ninner\n2\nf\ninner\n", "\(result.output)\(result.errors)")
        }
    }

    /// mount_setattr(2) with AT_RECURSIVE: each mount below the source changes too.
    @Test(
        arguments: [
            (["rnoatime"], ["noatime"], ["relatime"]), (["rrelatime"], ["relatime"], ["noatime"]),
            (["rnoatime", "ratime"], ["relatime"], ["noatime"]), (["rstrictatime"], [], ["relatime", "noatime"]),
            (["rnodiratime", "rnoatime"], ["nodiratime", "noatime"], []),
            (["rro", "rnosuid"], ["ro", "nosuid"], ["rw"]),
            (["rnodev", "rnoexec"], ["nodev", "noexec"], []), (["rnosymfollow"], ["nosymfollow"], []),
        ] as [([String], [String], [String])])
    func recursiveAttributesHoldBelow(options: [String], present: [String], absent: [String]) async throws {
        try await AgentUnderTest.play { agent in
            let id = options.joined()
            let result = try await agent.run(["grep", " /outer", "/proc/self/mountinfo"], id: id) {
                // It has mounts below: the hierarchies of cgroups.
                $0.mounts.append(Mount(destination: "/outer", source: "/sys/fs", options: ["rbind"] + options))
            }
            let mounts = result.output.split(separator: "\n").map { $0.split(separator: " ")[5].split(separator: ",") }
            #expect(mounts.count > 1, "\(result.errors)")
            for found in mounts {
                for option in present { #expect(found.contains(Substring(option)), "\(result.output)") }
                for option in absent { #expect(!found.contains(Substring(option)), "\(result.output)") }
            }
        }
    }

    @Test func aTmpfsHasItsSize() async throws {
        try await AgentUnderTest.play { agent in
            let script = "grep MemTotal /proc/meminfo | tr -cd 0-9; echo; df -k /t /m | awk '/tmpfs/ {print $2}'"
            let result = try await agent.run(["sh", "-c", script], id: "t") {
                $0.mounts += [
                    Mount(destination: "/t", type: "tmpfs", source: "tmpfs", options: ["size=10%", "nosuid"]),
                    Mount(destination: "/m", type: "tmpfs", source: "tmpfs", options: ["size=1m"]),
                ]
            }
            let numbers = result.output.split(separator: "\n").compactMap { Int($0) }
            try #require(numbers.count == 3, "\(result.output)\(result.errors)")
            #expect(abs(numbers[1] - numbers[0] / 10) < numbers[0] / 100)
            #expect(numbers[2] == 1024)
        }
    }
}

@Suite struct FileSystemTypesTests {
    private let types = FileSystemTypes(list: "nodev\tproc\nnodev\ttmpfs\n\text4\nnodev\tfuse\n")

    @Test(arguments: ["ext4", "tmpfs", "fuse.sshfs"]) func whatTheKernelHasIsTaken(type: String) throws {
        try types.check([.init(destination: "/x", type: type, source: "x", options: .init())])
    }

    @Test(arguments: [
        ("uds", "mounts[1].type (/x): uds: no such file system in the guest"),
        ("fuseblk.x", "mounts[1].type (/x): fuseblk.x: no such file system in the guest"),
        ("nodev", "mounts[1].type (/x): nodev: no such file system in the guest"),
        ("", "mounts[1].type (/x): \"\": no such file system in the guest"),
    ]) func whatItLacksIsNamed(type: String, message: String) throws {
        let mounts = ["proc", type].map {
            ContainerPlan.MountPlan(destination: "/x", type: $0, source: "x", options: .init())
        }
        let failure = #expect(throws: AgentFailure.self) { try types.check(mounts) }
        #expect(failure?.kind == .unimplemented && failure?.message == message)
        // A bind or a remount has no type.
        for option in ["bind", "remount"] {
            try types.check([.init(destination: "/x", type: type, source: "x", options: try MountOptions([option]))])
        }
    }
}
