import Glibc
import Hypervisor
import LinuxSystem
import Testing

@testable import Sandbox

/// What becomes of the mounts of a root file system that are in images.
@Suite struct DiskRootTests {
    /// Files of so many bytes in a fresh directory, which is gone afterwards.
    private func withFiles(_ sizes: [String: Int], _ body: (String) throws -> Void) throws {
        var template = Array("/tmp/martlet-disks.XXXXXX".utf8CString)
        let made = String(cString: try #require(mkdtemp(&template)))
        let directory = String(cString: try #require(realpath(made, nil)))
        defer {
            for name in sizes.keys { unlink("\(directory)/\(name)") }
            rmdir(directory)
        }
        for (name, size) in sizes {
            let file = try OwnedDescriptor.open("\(directory)/\(name)", O_RDWR | O_CREAT, mode: 0o600)
            try check("ftruncate", name, ftruncate(file.raw, size))
        }
        try body(directory)
    }

    private func plan(_ mounts: [RootMount]) throws -> SandboxPlan.DiskRoot? {
        try DiskRootPlanner.plan(mounts, id: "c")
    }

    private func mount(_ type: String, _ source: String, _ options: String...) -> RootMount {
        RootMount(type: type, source: source, target: "", options: options)
    }

    private let layers = "/run/martlet/containers/c/layers"
    private let root = "/run/martlet/containers/c/rootfs"

    @Test func anImageIsADisk() throws {
        try withFiles(["image": 8192]) { directory in
            let plan = try #require(try plan([mount("ext4", "\(directory)/image", "loop", "discard")]))
            let disk = Disk(path: "\(directory)/image", readOnly: false)
            #expect(plan.disks == [disk] && !plan.readOnly)
            #expect(
                plan.mounts == [
                    .init(kind: .disk(id: disk.id, type: "ext4", parts: []), options: ["discard"], mountPoint: root)
                ])
            #expect(disk.id.utf8.count == 20)
        }
    }

    /// The places of mounts are made upon a read-only one, in the guest's memory.
    @Test func aReadOnlyImageGetsAPlaceForMounts() throws {
        try withFiles(["image": 8192]) { directory in
            for (type, options) in [("ext4", ["ro"]), ("erofs", ["loop"])] {
                let image = RootMount(type: type, source: "\(directory)/image", target: "", options: options)
                let plan = try #require(try plan([image]))
                #expect(plan.readOnly && plan.disks.map(\.readOnly) == [true])
                #expect(plan.mounts.map(\.mountPoint).first == "\(layers)/0" && plan.mounts.count == 3)
                #expect(plan.mounts[0].options == ["ro"] && plan.mounts[1].kind == .memory)
                let memory = plan.mounts[1].mountPoint
                #expect(
                    plan.mounts[2].kind
                        == .overlay(lower: ["\(layers)/0"], upper: "\(memory)/upper", work: "\(memory)/work"))
                #expect(plan.mounts[2].mountPoint == root)
            }
        }
    }

    /// As containerd's EROFS snapshotter writes them, with `default_size`.
    @Test func layersAreOneDisk() throws {
        try withFiles(["rw": 4096, "a": 4096, "b": 5000, "c": 100]) { directory in
            let plan = try #require(
                try plan([
                    mount(
                        "mkfs/ext4", "\(directory)/rw", "X-containerd.mkfs.size=4096", "X-containerd.mkfs.fs=ext4",
                        "rw", "loop"),
                    mount("erofs", "\(directory)/b", "ro", "loop"), mount("erofs", "\(directory)/c", "ro", "loop"),
                    mount("erofs", "\(directory)/a", "ro", "loop"),
                    mount(
                        "format/mkdir/overlay", "overlay", "X-containerd.mkdir.path={{ mount 0 }}/upper:0755",
                        "X-containerd.mkdir.path={{ mount 0 }}/work:0750:1:2", "workdir={{ mount 0 }}/work",
                        "upperdir={{ mount 0 }}/upper", "lowerdir={{ overlay 1 3 }}", "index=off"),
                ]))
            let layer = Disk(
                parts: [("b", 5000), ("c", 100), ("a", 4096)].map { .init(path: "\(directory)/\($0)", bytes: $1) },
                readOnly: true)
            #expect(plan.disks == [Disk(path: "\(directory)/rw", readOnly: false), layer] && !plan.readOnly)
            func part(_ offset: UInt64, _ length: UInt64) -> SandboxPlan.GuestMount.Kind {
                .disk(id: layer.id, type: "erofs", parts: [.init(offset: offset, length: length)])
            }
            #expect(
                plan.mounts.dropFirst().prefix(3).map(\.kind) == [part(0, 8192), part(8192, 4096), part(12288, 4096)])
            let last = try #require(plan.mounts.last)
            #expect(
                last.kind
                    == .overlay(
                        lower: (1...3).map { "\(layers)/\($0)" }, upper: "\(layers)/0/upper", work: "\(layers)/0/work"))
            #expect(last.options == ["index=off"] && last.mountPoint == root)
            #expect(
                last.directories == [
                    .init(path: "\(layers)/0/upper"), .init(path: "\(layers)/0/work", mode: 0o750, uid: 1, gid: 2),
                ])
        }
    }

    /// A file system of EROFS whose content is in other files.
    @Test func furtherDevicesArePartsToo() throws {
        try withFiles(["meta": 4096, "a": 4096, "b": 4096]) { directory in
            let plan = try #require(
                try plan([
                    mount("erofs", "\(directory)/meta", "ro", "loop", "device=\(directory)/a", "device=\(directory)/b"),
                    mount("format/bind", "{{ mount 0 }}", "ro", "rbind"),
                ]))
            #expect(plan.disks.map { $0.parts.count } == [3] && plan.readOnly)
            guard case .disk(_, "erofs", let parts) = plan.mounts[0].kind else {
                Issue.record("\(plan)")
                return
            }
            #expect(parts.map(\.offset) == [0, 4096, 8192])
            guard case .overlay(let lower, _, _) = plan.mounts.last?.kind else {
                Issue.record("\(plan)")
                return
            }
            #expect(lower == ["\(layers)/0"])
        }
    }

    @Test func aLoopMountNamesItsFile() throws {
        try withFiles(["image": 4096]) { directory in
            let plan = try #require(
                try plan([
                    mount("loop", "\(directory)/image"), mount("format/ext4", "{{ source 0 }}"),
                    mount("format/mkdir/bind", "{{ mount 1 }}/upper", "X-containerd.mkdir.path={{ mount 1 }}/upper"),
                ]))
            #expect(plan.disks.map(\.parts) == [[.init(path: "\(directory)/image")]] && !plan.readOnly)
            #expect(plan.mounts.map(\.mountPoint) == ["\(layers)/1", root])
            #expect(plan.mounts[1].kind == .bind(path: "\(layers)/1/upper"))
            #expect(plan.mounts[1].directories == [.init(path: "\(layers)/1/upper", mode: 0o700)])
        }
    }

    @Test func aDirectoryOfTheHostStaysUnwritten() throws {
        try withFiles(["a": 4096]) { directory in
            let plan = try #require(
                try plan([
                    mount("erofs", "\(directory)/a", "ro"),
                    mount(
                        "format/mkdir/overlay", "overlay", "workdir=/host/work", "upperdir=/host/fs",
                        "lowerdir={{ mount 0 }}"),
                ]))
            #expect(plan.mounts.map(\.kind)[1] == .memory && !plan.readOnly)
            guard case .overlay(_, let upper, _) = plan.mounts.last?.kind else {
                Issue.record("\(plan)")
                return
            }
            #expect(upper.hasPrefix("\(layers)/"))
        }
    }

    /// The host's own mounts are made by the host.
    @Test func directoriesAreNoDisks() throws {
        #expect(try plan([]) == nil)
        #expect(try plan([mount("bind", "/var", "rbind")]) == nil)
        #expect(try plan([mount("overlay", "overlay", "lowerdir=/a:/b")]) == nil)
        #expect(try plan([mount("btrfs", "/dev/null", "subvolid=5")]) == nil)
    }

    @Test func whatCannotBeIsNamed() throws {
        try withFiles(["a": 4096, "empty": 0]) { directory in
            let erofs = mount("erofs", "\(directory)/a")
            let cases: [([RootMount], String)] = [
                (
                    [mount("xfs", "/none")],
                    "rootfs[0].type: xfs on a disk (the guest's kernel has erofs, ext2, ext3, ext4)"
                ),
                ([mount("squashfs", "\(directory)/a")], "rootfs[0].type: squashfs on a disk"),
                ([mount("ext4", "/none/at/all")], "rootfs[0] (ext4 /none/at/all): source: resolve"),
                ([mount("ext4", "/etc")], "/etc: neither a file nor a block device"),
                ([mount("ext4", "\(directory)/empty")], "empty"),
                ([erofs, mount("overlay", "overlay", "lowerdir=/etc")], "rootfs[1] (overlay overlay): lowerdir: /etc"),
                ([erofs, mount("format/overlay", "o", "lowerdir={{ mount 1 }}")], "there are 1 mounts before it"),
                ([erofs, mount("format/overlay", "o", "lowerdir={{ what 0 }}")], "{{ what 0 }}: not known"),
                ([erofs, mount("format/overlay", "o", "lowerdir={{ mount 0")], "without }}"),
                ([erofs, mount("format/bind", "{{ mount 0 }}/../../x")], "source: "),
                ([erofs, mount("overlay", "o", "lowerdir={{ mount 0 }}", "uidmap=0:1:2")], "uidmap: mapped ids"),
                (
                    [mount("erofs", "\(directory)/a", "X-containerd.dmverity=/x")],
                    "X-containerd.dmverity=/x is not supported"
                ),
                ([mount("other/ext4", "\(directory)/a")], "the prefix other/"),
                ([mount("format/overlay", "o", "lowerdir=/a")], "rootfs[0].type: format/overlay without a file system"),
                ([mount("loop", "\(directory)/a")], "the last mount is no file system"),
            ]
            for (mounts, words) in cases {
                let error = #expect(throws: SandboxError.self) { try plan(mounts) }
                #expect(error?.description.contains(words) == true, "\(error?.description ?? "")")
            }
            let many = (0..<251).map { _ in erofs }
            let error = #expect(throws: SandboxError.self) {
                try plan(many + [mount("format/overlay", "o", "lowerdir={{ overlay 0 250 }}")])
            }
            #expect(error?.description.contains("251 files of EROFS, more than 250") == true)
        }
    }
}
