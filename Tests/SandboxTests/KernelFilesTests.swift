import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Testing

@testable import Sandbox

/// Which of the host's mounts a container may get, and with which flags.
@Suite(.serialized, .enabled(if: geteuid() == 0, "needs root")) struct KernelFilesTests {
    private func plan(
        _ mounts: [Mount] = [], nosuid: Bool = false, _ prepare: (String) throws -> Void = { _ in }
    ) throws -> SandboxPlan.Container {
        var template = Array("/tmp/martlet-kernel.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        let directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer {
            try? MountEntry.detachAll(below: directory)
            try? FileManager.default.removeItem(atPath: directory)
        }
        for name in ["rootfs", "rootfs/proc", "volume", "volume/proc"] {
            try #require(mkdir("\(directory)/\(name)", 0o755) == 0)
        }
        try prepare(directory)
        var spec = Spec.standard()
        spec.root = Root(path: "rootfs")
        spec.mounts = mounts
        try String(decoding: JSON.encode(spec), as: UTF8.self)
            .write(toFile: "\(directory)/config.json", atomically: false, encoding: .utf8)
        return try SandboxPlan.Container(id: "c", bundle: Bundle(directory: directory), nosuid: nosuid)
    }

    private func mount(_ type: String, _ path: String, _ flags: UInt = 0) throws {
        try #require(Glibc.mount("none", path, type, flags, nil) == 0, "errno \(errno)")
    }

    private func refusal(_ mounts: [Mount] = [], _ prepare: (String) throws -> Void = { _ in }) throws -> String? {
        do {
            _ = try plan(mounts, prepare)
            return nil
        } catch { return "\(error)" }
    }

    private func volume(_ options: [String], of source: String = "volume") -> Mount {
        Mount(destination: "/v", type: "bind", source: source, options: options)
    }

    @Test func procfsAndSysfsAreRefusedByTheirPath() throws {
        for path in ["/proc", "/proc/sys", "/sys", "/sys/kernel", "/proc/self/status"] {
            let message = try refusal([volume(["bind"], of: path)])
            #expect(message?.contains("procfs or sysfs of the host is not supported") == true, "\(message ?? "taken")")
            #expect(message?.contains(path == "/proc/self/status" ? "/status" : path) == true)
        }
    }

    @Test func onesBelowAreRefusedWhereTheGuestWouldSeeThem() throws {
        let make = { (directory: String) in try self.mount("proc", "\(directory)/volume/proc") }
        let message = try refusal([volume(["rbind"])], make)
        #expect(message?.contains("/volume/proc, below /tmp/martlet-kernel.") == true, "\(message ?? "taken")")
        #expect(try refusal([volume(["bind"])], make) == nil, "it does not show")
        let root = try refusal { try self.mount("sysfs", "\($0)/rootfs/proc") }
        #expect(root?.contains("/rootfs/proc, below ") == true, "\(root ?? "taken")")
        #expect(try refusal([volume(["rbind"], of: "/")])?.contains("below /") == true)
    }

    /// One that is mounted after the plan was made is not cloned.
    @Test func oneThatComesLaterIsNotShared() throws {
        #expect(throws: SystemError.self) { try DetachedMount.clone(.path("/proc"), all: false, readOnly: .all) }
    }

    @Test func aBindMountHasTheFlagsOfItsSource() throws {
        func options(_ own: [String], _ flags: UInt, nosuid: Bool = false) throws -> [String] {
            let container = try plan([volume(own)], nosuid: nosuid) { directory in
                if flags != 0 { try self.mount("tmpfs", "\(directory)/volume", flags) }
            }
            return try #require(container.spec.mounts.first).options
        }
        let both = MountFlag.noSetID | MountFlag.noDevices
        #expect(try options(["rbind", "rw"], both) == ["rbind", "rw", "nosuid", "nodev"])
        #expect(try options(["rbind", "nodev"], both) == ["rbind", "nodev", "nosuid"])
        #expect(try options(["rbind", "suid", "dev"], both) == ["rbind", "suid", "dev"], "as the bundle says")
        #expect(try options(["rbind"], 0) == ["rbind"])
        #expect(try options(["rbind", "suid"], 0, nosuid: true) == ["rbind", "suid", "nosuid"], "as the host says")
    }

    @Test func theSourcesOtherFlagsGoByRuncsRules() {
        func options(_ own: [String], _ flags: UInt, ownUsers: Bool = false) -> [String] {
            SourceFlags(flags).options(beside: own, nosuid: false, ownUsers: ownUsers)
        }
        let relative = SourceFlags.relativeAccessTimes
        let strict = MountFlag.readOnly | MountFlag.noExecution | SourceFlags.noSymlinks | relative
        #expect(options(["rbind", "rprivate"], strict) == ["ro", "noexec", "nosymfollow"], "no flag: all of them")
        #expect(options(["bind", "dev"], strict) == [], "some flag: the others are off")
        #expect(options(["bind", "dev"], strict, ownUsers: true) == ["ro", "noexec"])
        #expect(options(["bind", "rw", "exec"], strict, ownUsers: true) == [], "the device keeps it read-only")
        #expect(options(["bind"], MountFlag.noAccessTime) == ["noatime"])
        #expect(options(["bind"], MountFlag.noAccessTime, ownUsers: true) == [], "its users may not change it")
        #expect(options(["bind", "ro", "norelatime"], MountFlag.noAccessTime) == ["noatime"])
        #expect(options(["bind", "relatime"], MountFlag.noAccessTime) == [])
        #expect(options(["bind", "ro"], MountFlag.noDirectoryAccessTime) == ["strictatime", "nodiratime"])
    }
}
