import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec
import Testing

@testable import Sandbox

@Suite struct ContainerPlannerTests {
    /// A bundle in a directory of its own, with a root file system and a file to mount.
    private func withBundle(_ mounts: [Mount], readOnly: Bool = false, _ body: (String, Bundle) throws -> Void) throws {
        var template = Array("/tmp/martlet-plan.XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        let directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        #expect(mkdir("\(directory)/rootfs", 0o755) == 0)
        var spec = Spec.standard()
        spec.root = Root(path: "rootfs", readonly: readOnly)
        spec.mounts = mounts
        for (name, text) in [
            ("config.json", String(decoding: try JSON.encode(spec, indented: true), as: UTF8.self)), ("file", "x"),
        ] {
            let file = try OwnedDescriptor.open("\(directory)/\(name)", O_WRONLY | O_CREAT, mode: 0o644)
            #expect(write(file.raw, text, text.utf8.count) == text.utf8.count)
        }
        #expect(mkfifo("\(directory)/fifo", 0o600) == 0)
        try body(directory, Bundle(directory: directory))
    }

    @Test func rootAndBindMountsBecomeShares() throws {
        let mounts = [
            Mount(destination: "/proc", type: "proc", source: "proc"),
            Mount(destination: "/file", type: "bind", source: "file", options: ["bind", "ro"]),
        ]
        try withBundle(mounts, readOnly: true) { directory, bundle in
            let plan = try SandboxPlan.Container(id: "c1", bundle: bundle)
            #expect(
                plan.shares == [
                    .init(
                        source: "\(directory)/rootfs", mounts: .all, readOnly: .top,
                        mountPoint: "/run/martlet/containers/c1/rootfs"),
                    .init(
                        source: "\(directory)/file", mounts: .top, readOnly: .top,
                        mountPoint: "/run/martlet/containers/c1/mounts/1"),
                ])
            #expect(plan.spec.root == Root(path: "/run/martlet/containers/c1/rootfs", readonly: true))
            #expect(plan.spec.mounts[0].source == "proc")
            #expect(plan.spec.mounts[1].source == "/run/martlet/containers/c1/mounts/1")
        }
    }

    @Test func laterMountsOfTheHostAreFollowedWhereTheLastOptionSaysSo() throws {
        for (options, propagates) in [
            (["rbind"], false), (["rbind", "rslave"], true), (["bind", "ro", "slave"], true),
            (["rslave", "rbind", "rprivate"], false), (["rbind", "private", "slave"], true),
        ] {
            try withBundle([Mount(destination: "/m", type: "bind", source: "file", options: options)]) { _, bundle in
                let plan = try SandboxPlan.Container(id: "c1", bundle: bundle)
                #expect(plan.shares.map(\.propagates) == [false, propagates], "\(options)")
            }
        }
    }

    @Test func mountsBelowAPathComeAfterThoseThatTheyAreIn() {
        let table = MountEntry.list(
            """
            1 0 0:1 / / rw shared:1 - ext4 a rw
            2 1 0:2 / /d/m/x rw - tmpfs b rw
            3 1 0:3 / /d/m rw master:1 - tmpfs c rw
            4 1 0:4 / /dm rw - tmpfs d rw
            5 1 0:5 / /d rw - tmpfs e rw
            """)
        #expect(table.map(\.propagates) == [true, false, true, false, false])
        let below = DetachedMount.below("/d", in: table)
        #expect(below.map(\.entry.id) == [5, 3, 2] && below.map(\.relative) == ["", "m", "m/x"])
        #expect(DetachedMount.below("/", in: table).map(\.relative) == ["", "dm", "d", "d/m", "d/m/x"])
    }

    /// As with runc: a path of the root file system on the host is one in the container.
    @Test func mountsMayNameTheRootByItsPathOnTheHost() throws {
        func mount(_ destination: String, _ source: String) -> Mount {
            Mount(destination: destination, type: "bind", source: source, options: ["bind"])
        }
        var mounts = [
            mount("rel", "/s"), mount("/b/rootfs/a//b", "/s"), mount("/b/rootfs2", "/s"), mount("/b/rootfs/../x", "/s"),
        ]
        mounts.completeDestinations(rootPath: "/b/rootfs")
        #expect(mounts.map(\.destination) == ["/rel", "/a/b", "/b/rootfs2", "/b/rootfs/../x"])
        for (source, part) in [
            ("/b/rootfs/a/b/c", "/a/b/c"), ("/b/rootfs/a", "/a"), ("/b/rootfs/ab", nil), ("/b/rootfs", nil),
            ("/s", nil),
            ("/b/rootfs/a/../../x", nil),
        ] { #expect(mounts.partOfRoot(4, source, rootPath: "/b/rootfs") == part, "\(source)") }
        #expect(mounts.partOfRoot(1, "/b/rootfs/a/b/c", rootPath: "/b/rootfs") == nil, "what comes later has no part")
    }

    @Test func mappedIDsAreTheHostsToMap() throws {
        var mounts = ["idmap", "ridmap", "ro"].map {
            Mount(destination: "rel", type: "bind", source: "file", options: ["rbind", $0])
        }
        mounts[1].uidMappings = [.init(containerID: 0, hostID: 100, size: 10)]
        mounts[1].gidMappings = [.init(containerID: 1, hostID: 200, size: 20)]
        try withBundle(mounts) { directory, bundle in
            var bundle = bundle
            #expect {
                try SandboxPlan.Container(id: "c1", bundle: bundle)
            } throws: {
                "\($0)".contains("mounts[0].options (/rel): idmap without uidMappings and gidMappings")
            }
            bundle.spec.linux?.uidMappings = [.init(containerID: 0, hostID: 7, size: 8)]
            bundle.spec.linux?.gidMappings = [.init(containerID: 0, hostID: 9, size: 10)]
            let plan = try SandboxPlan.Container(id: "c1", bundle: bundle)
            let implied = MappedIDs(
                users: [.init(first: 0, becomes: 7, count: 8)], groups: [.init(first: 0, becomes: 9, count: 10)])
            let own = MappedIDs(
                users: [.init(first: 0, becomes: 100, count: 10)], groups: [.init(first: 1, becomes: 200, count: 20)])
            #expect(
                plan.shares.dropFirst().map(\.ids) == [
                    .init(map: implied, mounts: .top), .init(map: own, mounts: .all), nil,
                ])
            #expect(plan.spec.mounts.map(\.destination) == ["/rel", "/rel", "/rel"])
            #expect(plan.spec.mounts.map(\.options) == [["rbind"], ["rbind"], ["rbind", "ro"]])
            #expect(plan.spec.mounts[1].uidMappings.isEmpty && plan.spec.mounts[1].gidMappings.isEmpty)
        }
    }

    /// What a container gets of the host is in its mounts, where an engine checks it. An annotation adds nothing, whosever it is
    /// (GHSA-rr59-xxvx-96qr of Kata, and its annotation for shared paths).
    @Test func noAnnotationSharesAPathOfTheHost() throws {
        let annotations = [
            "io.katacontainers.config.hypervisor.virtio_fs_extra_args": #"["-o","source=/"]"#,
            "io.katacontainers.config.hypervisor.shared_fs": "virtio-fs", "io.katacontainers.volume": "/etc",
            "run.oci.mount": "/etc", "martlet.share": "/etc",
        ]
        try withBundle([]) { directory, bundle in
            var bundle = bundle
            let plain = try SandboxPlan.Container(id: "c1", bundle: bundle)
            bundle.spec.annotations = annotations
            let plan = try SandboxPlan.Container.planned(id: "c1", bundle: bundle, Configuration()).0
            #expect(plan.shares == plain.shares && plan.shares.map(\.source) == ["\(directory)/rootfs"])
            #expect(plan.sockets.isEmpty && plan.volumes.isEmpty)
        }
        for key in ["shares", "paths.root", "vm.kernel", "vm.kernel_arguments", "qemu.path", "spec.host_devices"] {
            #expect(throws: ConfigurationError.self, "\(key)") {
                try Configuration.load(annotations: ["io.martlet.\(key)": "/"])
            }
        }
    }

    @Test func whatCannotBeSharedIsRefusedByName() throws {
        for (source, word) in [("missing", "No such file"), ("fifo", "not supported")] {
            try withBundle([Mount(destination: "/m", type: "bind", source: source)]) { _, bundle in
                #expect {
                    try SandboxPlan.Container(id: "c1", bundle: bundle)
                } throws: { error in
                    "\(error)".contains("mounts[0].source (/m)") && "\(error)".contains(word)
                }
            }
        }
    }

    @Test func aSocketBecomesAForwardedOne() throws {
        let mount = Mount(destination: "/run/s", type: "bind", source: "socket", options: ["rbind", "ro"])
        try withBundle([mount], readOnly: true) { directory, bundle in
            var listener: SharedDescriptor? = SharedDescriptor(try UnixAddress.listen("\(directory)/socket"))
            #expect(chmod("\(directory)/socket", 0o620) == 0 && chown("\(directory)/socket", getuid(), getgid()) == 0)
            let plan = try SandboxPlan.Container(id: "c1", bundle: bundle)
            let mountPoint = "/run/martlet/containers/c1/mounts/0"
            let expected = SandboxPlan.ForwardedSocket(
                source: "\(directory)/socket", mode: 0o620, uid: getuid(), gid: getgid(), mountPoint: mountPoint)
            #expect(plan.sockets == [expected])
            #expect(plan.shares.count == 1 && plan.spec.mounts[0].source == mountPoint)
            // Its server learns nothing of that.
            var item = pollfd(fd: listener?.raw ?? -1, events: Int16(POLLIN), revents: 0)
            #expect(poll(&item, 1, 0) == 0)
            // A file to mount it on.
            let root = try OwnedDescriptor.open("\(directory)/rootfs", O_RDONLY | O_DIRECTORY)
            plan.makeMountPoints(root: root.raw)
            var facts = stat()
            #expect(stat("\(directory)/rootfs/run/s", &facts) == 0 && facts.st_mode & S_IFMT == S_IFREG)
            #expect {
                try SandboxPlan.Container(id: "c1", bundle: bundle, forwardsSockets: false)
            } throws: {
                "\($0)".contains("mounts[0].source (/run/s)") && "\($0)".contains("sockets.forward is false")
            }
            // Without a server: it may come later.
            listener = nil
            #expect(try SandboxPlan.Container(id: "c1", bundle: bundle).sockets == [expected])
        }
    }

    @Test(arguments: [(SOCK_DGRAM, "datagram"), (SOCK_SEQPACKET, "seqpacket")])
    func aSocketOfAnotherTypeIsRefused(type: __socket_type, name: String) throws {
        try withBundle([Mount(destination: "/s", type: "bind", source: "socket")]) { directory, bundle in
            let socket = OwnedDescriptor(owning: Glibc.socket(AF_UNIX, Int32(type.rawValue), 0))
            let raw = socket.raw
            try UnixAddress("\(directory)/socket").with { address, length throws(SystemError) in
                _ = try check("bind", "", Glibc.bind(raw, address, length))
            }
            if type == SOCK_SEQPACKET { #expect(listen(raw, 1) == 0) }
            #expect { try SandboxPlan.Container(id: "c1", bundle: bundle) } throws: {
                "\($0)".contains("a \(name) socket: only stream sockets are forwarded")
            }
        }
    }

    /// nerdbox's way to name a socket of the host.
    @Test func aMountOfTheTypeUDSIsAForwardedSocket() throws {
        try withBundle([Mount(destination: "/run/s", type: "uds", source: "socket")]) { directory, bundle in
            let listener = SharedDescriptor(try UnixAddress.listen("\(directory)/socket"))
            defer { withExtendedLifetime(listener) {} }
            let plan = try SandboxPlan.Container(id: "c1", bundle: bundle)
            let mountPoint = "/run/martlet/containers/c1/mounts/0"
            #expect(plan.sockets.map(\.source) == ["\(directory)/socket"] && plan.shares.count == 1)
            #expect(plan.sockets.map(\.mountPoint) == [mountPoint])
            #expect(
                plan.spec.mounts == [
                    Mount(destination: "/run/s", type: "bind", source: mountPoint, options: ["rbind"])
                ])
            func refuses(_ words: String, forwards: Bool = true, _ edit: (inout Mount) -> Void = { _ in }) {
                var bundle = bundle
                edit(&bundle.spec.mounts[0])
                #expect {
                    try SandboxPlan.Container(id: "c1", bundle: bundle, forwardsSockets: forwards)
                } throws: {
                    "\($0)".contains("mounts[0].") && "\($0)".contains("(/run/s): ") && "\($0)".contains(words)
                }
            }
            refuses("sockets.forward is false", forwards: false)
            refuses("options (/run/s): ro: a mount of type uds has none") { $0.options = ["ro"] }
            refuses("No such file") { $0.source = "missing" }
            refuses("file is not a socket") { $0.source = "file" }
        }
    }

    /// A container in the pod's IPC namespace has the pod's memory at /dev/shm too, whatever its own mount says.
    @Test func sharedMemoryGoesWithTheNamespace() throws {
        let options = ["nosuid", "noexec", "nodev", "mode=1770", "size=3m"]
        let mounts = [Mount(destination: "/dev/shm", type: "tmpfs", source: "shm", options: options)]
        try withBundle(mounts) { _, bundle in
            #expect(try SandboxPlan.Container(id: "c1", bundle: bundle).podVolumes.isEmpty)
            var bundle = bundle
            for index in bundle.spec.linux?.namespaces.indices ?? 0..<0 {
                bundle.spec.linux?.namespaces[index].joinSandbox()
            }
            let plan = try SandboxPlan.Container(id: "c1", bundle: bundle)
            let volume = try #require(plan.podVolumes.first)
            #expect(plan.podVolumes.count == 1 && plan.sharedMemory == nil && plan.shares.count == 1)
            #expect(volume.size == 3 << 20 && volume.mode == 0o1770 && volume.source.isEmpty)
            #expect(try SandboxPlan.Container(id: "c2", bundle: bundle).podVolumes.map(\.name) == [volume.name])
            #expect(plan.spec.mounts[0].source == volume.mountPoint && plan.spec.mounts[0].isBind)
            #expect(plan.spec.mounts[0].options == ["rbind", "nosuid", "noexec", "nodev"])
        }
    }

    @Test(arguments: [
        ("size=65536k", 64 << 20 as UInt64?), ("size=1G", 1 << 30), ("size=4096", 4096), ("size=50%", nil),
        ("size=0", nil),
        ("size=", nil), ("size=99999999999999g", nil), ("mode=1777", nil),
    ])
    func theSizeOfATmpfsIsRead(_ option: String, _ bytes: UInt64?) {
        #expect(SandboxPlan.PodVolume.tmpfsSize(["nosuid", option]) == bytes)
    }

    @Test func mountPointsOfAReadOnlyRootAreMadeInsideIt() throws {
        let mounts = [
            Mount(destination: "/made/deep", type: "tmpfs", source: "tmpfs"),
            Mount(destination: "/out/escaped", type: "tmpfs", source: "tmpfs"),
            Mount(destination: "/../../up", type: "tmpfs", source: "tmpfs"),
            Mount(destination: "/file", type: "bind", source: "file"),
        ]
        try withBundle(mounts, readOnly: true) { directory, bundle in
            // A link out of the root: it is followed, but inside the root, where its target does not exist.
            #expect(symlink(directory, "\(directory)/rootfs/out") == 0)
            let root = try OwnedDescriptor.open("\(directory)/rootfs", O_RDONLY | O_DIRECTORY)
            try SandboxPlan.Container(id: "c1", bundle: bundle).makeMountPoints(root: root.raw)
            #expect(access("\(directory)/rootfs/made/deep", F_OK) == 0)
            #expect(access("\(directory)/escaped", F_OK) != 0)
            #expect(access("\(directory)/up", F_OK) != 0)
            var facts = stat()
            #expect(stat("\(directory)/rootfs/file", &facts) == 0 && facts.st_mode & S_IFMT == S_IFREG)
            rmdir("\(directory)/rootfs/up")
        }
    }

    /// As runc: links whose targets are missing are followed inside the root, and the targets are made.
    @Test func mountPointsBehindLinksOfTheImageAreMade() throws {
        let mounts = [
            Mount(destination: "/etc/resolv.conf", type: "bind", source: "file"),
            Mount(destination: "/run/x/y", type: "tmpfs", source: "tmpfs"),
            Mount(destination: "/up", type: "tmpfs", source: "tmpfs"),
            Mount(destination: "/data", type: "tmpfs", source: "tmpfs"),
        ]
        try withBundle(mounts, readOnly: true) { directory, bundle in
            let root = "\(directory)/rootfs"
            #expect(mkdir("\(root)/etc", 0o755) == 0)
            #expect(symlink("../run/systemd/resolve/stub-resolv.conf", "\(root)/etc/resolv.conf") == 0)
            #expect(symlink("/realrun", "\(root)/run") == 0)
            #expect(symlink("../../../above", "\(root)/up") == 0)
            var bundle = bundle
            bundle.spec.process?.cwd = "/work/dir"
            let descriptor = try OwnedDescriptor.open(root, O_RDONLY | O_DIRECTORY)
            try SandboxPlan.Container(id: "c1", bundle: bundle).makeMountPoints(root: descriptor.raw)
            let type = { (path: String) -> mode_t in
                var facts = stat()
                return lstat(root + path, &facts) == 0 ? facts.st_mode & S_IFMT : 0
            }
            #expect(type("/realrun/systemd/resolve/stub-resolv.conf") == S_IFREG)
            #expect(type("/etc/resolv.conf") == S_IFLNK && type("/run") == S_IFLNK)
            #expect(type("/realrun/x/y") == S_IFDIR && type("/above") == S_IFDIR && type("/work/dir") == S_IFDIR)
            #expect(access("\(directory)/above", F_OK) != 0)

            // A working directory in a mount is the guest's to make.
            bundle.spec.process?.cwd = "/data/inside"
            try SandboxPlan.Container(id: "c1", bundle: bundle).makeMountPoints(root: descriptor.raw)
            #expect(type("/data") == S_IFDIR && type("/data/inside") == 0)
        }
    }
}
