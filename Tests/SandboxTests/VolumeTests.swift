import AgentAPI
import Glibc
import LinuxSystem
import Logging
import OCISpec
import Synchronization
import Testing

@testable import Sandbox

/// Volumes as kubelet makes them: what becomes of each, and what of them is read.
@Suite struct VolumeTests {
    /// A pod's directory below a fresh one, where kubelet makes volumes; all of it is gone afterwards.
    private func withPod(_ body: (String) throws -> Void) throws {
        var template = Array("/tmp/martlet-volumes.XXXXXX".utf8CString)
        let directory = String(cString: try #require(mkdtemp(&template)))
        defer { _ = try? shell("rm -rf --one-file-system \(directory)") }
        let pod = "\(directory)/pods/uid"
        try shell("mkdir -p \(pod)/volumes/kubernetes.io~{empty-dir,configmap} \(directory)/bundle/rootfs")
        try body(pod)
    }

    @discardableResult
    private func shell(_ script: String) throws -> Int32 {
        let process = try ChildProcess(
            "sh",
            .init(
                executable: "/bin/bash", arguments: ["-ec", script],
                environment: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                descriptors: [-1, 2, 2]))
        let status = try #require(process.waitForEnd(timeout: .seconds(60))).status
        try #require(status == 0, "\(script)")
        return status
    }

    /// What AtomicWriter leaves: a directory, `..data`, and a link for each file.
    private func publish(_ volume: String, _ name: String, _ files: [String: String]) throws {
        try shell(
            "mkdir -p \(volume)/\(name); ln -sfn \(name) \(volume)/..data_tmp; mv -T \(volume)/..data_tmp \(volume)/..data"
        )
        for (file, text) in files {
            try shell("printf %s '\(text)' >\(volume)/\(name)/\(file); ln -sfn ..data/\(file) \(volume)/\(file)")
        }
    }

    private func plan(
        _ pod: String, _ sources: [String], at destinations: [String] = ["/m0", "/m1"], copyLimit: Int = 1 << 20
    ) throws -> (plan: SandboxPlan.Container, warnings: [String]) {
        var spec = Spec.standard()
        spec.root = Root(path: "rootfs")
        spec.mounts = zip(sources, destinations).map {
            Mount(destination: $1, type: "bind", source: $0, options: ["rbind", "ro"])
        }
        let bundle = "\(pod)/../../bundle"
        let file = try OwnedDescriptor.open("\(bundle)/config.json", O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
        let json = try JSON.encode(spec, indented: true)
        #expect(write(file.raw, Array(json), json.count) == json.count)
        var warnings: [String] = []
        let plan = try SandboxPlan.Container(id: "c", bundle: Bundle(directory: bundle), copyLimit: copyLimit) {
            warnings.append($0)
        }
        return (plan, warnings)
    }

    @Test func kubeletsPathsAreKnown() throws {
        let pod = "/var/lib/kubelet/pods/uid"
        let cache = try #require(KubeletDirectory("\(pod)/volumes/kubernetes.io~empty-dir/cache"))
        #expect(cache.plugin == .emptyDir && cache.name == "cache")
        #expect(KubeletDirectory("\(pod)/volume-subpaths/cache/main/0") == cache)
        for (plugin, title) in [
            ("configmap", "configMap"), ("secret", "secret"), ("projected", "projected"),
            ("downward-api", "downwardAPI"),
        ] {
            #expect(KubeletDirectory("\(pod)/volumes/kubernetes.io~\(plugin)/x")?.plugin.title == title)
        }
        for other in [
            "/", "/volumes/kubernetes.io~secret", "\(pod)/volumes/kubernetes.io~csi/x", "\(pod)/etc-hosts",
            "\(pod)/volumes/kubernetes.io~secret/x/deeper",
        ] {
            #expect(KubeletDirectory(other) == nil, "\(other)")
        }
    }

    @Test func aSizeIsKibibytes() {
        #expect(SandboxPlan.PodVolume.size(["rw", "size=1024k", "inode64"]) == 1 << 20)
        for none in [["rw"], ["size=0k"], ["size=x"], ["size=10%"]] { #expect(SandboxPlan.PodVolume.size(none) == nil) }
    }

    @Test func mountsAreRead() {
        let text = """
            21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
            36 35 0:45 /a\\040b /mnt/x\\134y rw - tmpfs tmpfs rw,size=8k
            nonsense
            """
        let mounts = MountEntry.list(text)
        #expect(mounts.map(\.device) == ["8:1", "0:45"] && mounts.map(\.root) == ["/", "/a b"])
        #expect(mounts.map(\.mountPoint) == ["/", "/mnt/x\\y"] && mounts.map(\.type) == ["ext4", "tmpfs"])
        #expect(mounts.map(\.options) == [["rw"], ["rw", "size=8k"]])
    }

    @Test func anEmptyDirOnDiskIsShared() throws {
        try withPod { pod in
            let volume = "\(pod)/volumes/kubernetes.io~empty-dir/disk"
            try shell("mkdir \(volume)")
            let (plan, warnings) = try plan(pod, [volume])
            #expect(plan.podVolumes == [] && plan.shares.count == 2 && warnings == [])
        }
    }

    @Test(.enabled(if: geteuid() == 0, "needs root")) func anEmptyDirInMemoryIsTheGuests() throws {
        try withPod { pod in
            let volume = "\(pod)/volumes/kubernetes.io~empty-dir/cache"
            let part = "\(pod)/volume-subpaths/cache/main/0"
            try shell("mkdir -p \(volume) \(part); mount -t tmpfs -o size=3m,mode=2770,gid=77 cache \(volume)")
            defer { _ = try? shell("umount \(volume)") }
            try shell("mkdir -p \(volume)/a/b; mount --bind \(volume)/a/b \(part)")
            defer { _ = try? shell("umount \(part)") }
            let (plan, _) = try plan(pod, [volume, part])
            #expect(plan.shares.map(\.mountPoint) == ["/run/martlet/containers/c/rootfs"])
            let (whole, rest) = (try #require(plan.podVolumes.first), try #require(plan.podVolumes.last))
            #expect(whole.kind == .memory && whole.size == 3 << 20 && whole.title == "emptyDir cache")
            #expect(whole.mode == 0o2770 && whole.gid == 77 && whole.part == "" && whole.source == volume)
            // The same volume, of which it is a part.
            #expect(rest.name == whole.name && rest.part == "a/b" && rest.source == volume && rest.size == 3 << 20)
            #expect(plan.spec.mounts.map(\.source) == plan.podVolumes.map(\.mountPoint))
            #expect(plan.storages.map(\.driver) == ["volume", "volume"])
            #expect(try VolumeTree.directories(to: "a/b", in: volume).map(\.path) == ["a", "a/b"])
            // Programs that share memory by name use it so.
            let memory = try self.plan(pod, [volume], at: ["/dev/shm"]).plan
            #expect(memory.podVolumes.map(\.name) == [whole.name] && memory.sharedMemory == nil)
            try shell("mount -o remount,size=0 \(volume)")
            #expect(try self.plan(pod, [volume]).plan.podVolumes.first?.size == nil)
        }
    }

    @Test func whatKubeletPublishesIsCopied() throws {
        try withPod { pod in
            let volume = "\(pod)/volumes/kubernetes.io~configmap/settings"
            try publish(volume, "..1", ["key": "value"])
            // What a container mounts in part does not change: it stays on the share.
            try shell("mkdir -p \(pod)/volume-subpaths/settings/main; touch \(pod)/volume-subpaths/settings/main/0")
            let (plan, warnings) = try plan(pod, [volume, "\(pod)/volume-subpaths/settings/main/0"])
            #expect(plan.podVolumes.map(\.kind) == [.copy] && plan.podVolumes.map(\.size) == [nil])
            #expect(
                plan.shares.map(\.mountPoint) == [
                    "/run/martlet/containers/c/rootfs", "/run/martlet/containers/c/mounts/1",
                ] && warnings == [])
        }
    }

    @Test func whatCannotBeCopiedIsSharedWithAWarning() throws {
        try withPod { pod in
            let volume = "\(pod)/volumes/kubernetes.io~configmap/settings"
            func expect(_ words: String, sourceLocation: SourceLocation = #_sourceLocation) throws {
                let (plan, warnings) = try plan(pod, [volume], copyLimit: 4096)
                #expect(plan.podVolumes == [] && plan.shares.count == 2, sourceLocation: sourceLocation)
                #expect(
                    warnings.count == 1 && warnings[0].contains("configMap settings"), sourceLocation: sourceLocation)
                #expect(warnings[0].contains(words), "\(warnings)", sourceLocation: sourceLocation)
            }
            try shell("mkdir \(volume)")
            try expect("no link ..data")
            try shell("ln -s /etc \(volume)/..data")
            try expect("..data leads to /etc")
            try shell("ln -sfn ..away \(volume)/..data; ln -s /etc \(volume)/..away")
            try expect("..data names ..away")
            try shell("rm \(volume)/..*a*")
            try publish(volume, "..1", ["key": String(repeating: "x", count: 5000)])
            try expect("4096 bytes that volumes.copy_limit_mib allows")
            try publish(volume, "..2", ["key": "x"])
            try shell("touch \(volume)/plain")
            try expect("plain is not a link")
        }
    }

    private static let hasHugePages =
        geteuid() == 0 && (try? readText("/proc/filesystems").contains("hugetlbfs")) == true

    @Test(.enabled(if: hasHugePages, "needs root and hugetlbfs")) func hugePagesAreRefused() throws {
        try withPod { pod in
            let volume = "\(pod)/volumes/kubernetes.io~empty-dir/huge"
            try shell("mkdir \(volume); mount -t hugetlbfs none \(volume)")
            defer { _ = try? shell("umount \(volume)") }
            #expect {
                try plan(pod, [volume])
            } throws: { error in
                "\(error)".contains("mounts[0].source (/m0)") && "\(error)".contains("emptyDir huge")
                    && "\(error)".contains("huge pages")
            }
        }
    }

    @Test func linksAreNotFollowedOnTheHost() throws {
        try withPod { pod in
            let volume = "\(pod)/volumes/kubernetes.io~configmap/settings"
            try publish(volume, "..1", ["key": "value"])
            try shell("mkdir \(volume)/..1/sub; ln -s /etc/passwd \(volume)/..1/out; ln -s /etc \(volume)/..1/sub/etc")
            let content = try PublishedContent.read(volume, limit: 1 << 20)
            #expect(content.name == "..1" && content.links.map(\.path) == ["key"])
            #expect(content.files.map(\.path) == ["", "key", "out", "sub", "sub/etc"])
            #expect(content.files[2].data == Array("/etc/passwd".utf8) && content.files[4].data == Array("/etc".utf8))
            #expect(content.files[1].data == Array("value".utf8))
            try shell("mkfifo \(volume)/..1/fifo")
            #expect(throws: SandboxError.self) { try PublishedContent.read(volume, limit: 1 << 20) }
        }
    }

    @Test func requestsFitMessages() {
        var (big, small, facts) = (VolumeEntry("", stat()), VolumeEntry("", stat()), stat())
        facts.st_mode = S_IFREG | 0o640
        big = VolumeEntry("big", facts)
        big.data = (0..<(5 << 19)).map { UInt8(truncatingIfNeeded: $0) }
        small = VolumeEntry("small", facts)
        var requests = VolumeRequests("v")
        requests.add([big, small], in: "..1")
        requests.publish("..1", [])
        #expect(requests.requests.count == 4)
        #expect(requests.requests.allSatisfy { (try? $0.serializedData().count) ?? .max < 3 << 20 })
        let pieces = requests.requests.flatMap(\.entries)
        #expect(pieces.map(\.path) == ["..1/big", "..1/big", "..1/big", "..1/small"])
        #expect(pieces.prefix(3).reduce([UInt8]()) { $0 + $1.data } == big.data)
        var offset: UInt64 = 0
        for piece in pieces.prefix(3) {
            #expect(piece.offset == offset)
            offset += UInt64(piece.data.count)
        }
        #expect(requests.requests.map(\.publish) == ["", "", "", "..1"])
    }

    @Test func withoutWatchesItIsLookedAtOnceASecond() throws {
        let changed = try Promise<Void>()
        let watch = VolumeWatch(
            logger: Logger(label: "test"),
            makeWatch: { _ throws(SystemError) in throw SystemError("inotify_init", errno: .tooManyOpenFiles) },
            onChange: { changed.settle(()) })
        watch.add("/nonexistent")
        #expect(changed.wait(timeout: .seconds(20)) != nil)
        // Its end is the polling's.
        withExtendedLifetime(watch) {}
    }

    @Test func aWatchTellsOfWhatIsInADirectory() throws {
        try withPod { pod in
            let told = Mutex(0)
            let watch = VolumeWatch(logger: Logger(label: "test")) { told.withLock { $0 += 1 } }
            watch.add(pod)
            for script in [
                "ln -s x \(pod)/made", "mv \(pod)/made \(pod)/moved", "chmod 700 \(pod)/volumes", "rm \(pod)/moved",
            ] {
                let before = told.withLock { $0 }
                try shell(script)
                let end = ContinuousClock.now + .seconds(20)
                while told.withLock({ $0 }) == before, ContinuousClock.now < end { usleep(5000) }
                #expect(told.withLock { $0 } > before, "\(script)")
                // What comes together is told once: this is over.
                usleep(50_000)
            }
            withExtendedLifetime(watch) {}
        }
    }

    /// Volumes with secrets are known by where kubelet has them, as a whole and in parts.
    @Test func secretsAreKnown() throws {
        try withPod { pod in
            var mounts: [Mount] = []
            for (plugin, name) in [("configmap", "map"), ("secret", "key"), ("projected", "token"), ("empty-dir", "x")]
            {
                let path = "\(pod)/volumes/kubernetes.io~\(plugin)/\(name)"
                let part = "\(pod)/volume-subpaths/\(name)/main/0"
                for directory in [path, part] {
                    try makeDirectories(directory)
                    mounts.append(Mount(destination: "/x", type: "bind", source: directory, options: ["rbind"]))
                }
            }
            var spec = Spec.standard()
            spec.mounts += mounts
            #expect(spec.secretVolumes == ["secret key", "secret key", "projected token", "projected token"])
            spec.mounts = mounts.filter { !$0.source.contains("secret") && !$0.source.contains("projected") }
                .filter { !$0.source.contains("/key/") && !$0.source.contains("/token/") }
            #expect(spec.secretVolumes.isEmpty)
        }
    }

    /// Whatever happens while it is read, it is read as it was at one time.
    @Test func contentIsReadWhole() throws {
        try withPod { pod in
            let volume = "\(pod)/volumes/kubernetes.io~configmap/settings"
            try publish(volume, "..0", ["a": "0", "b": "0"])
            let writer = try ChildProcess(
                "writer",
                .init(
                    executable: "/bin/bash",
                    arguments: [
                        "-c",
                        """
                        cd \(volume); for i in {1..300}; do mkdir ..$i; echo -n $i >..$i/a; echo -n $i >..$i/b
                        ln -s ..$i ..data_tmp; mv -T ..data_tmp ..data; rm -r ..$((i-1)); done
                        """,
                    ], environment: ["PATH=/usr/bin:/bin"], descriptors: [-1, 2, 2]))
            var seen: Set<String> = []
            while writer.waitForEnd(timeout: .zero) == nil {
                // One that changes all the time may not be read at all: then it says so.
                guard let content = try? PublishedContent.read(volume, limit: 1 << 20) else { continue }
                #expect(content.files.map(\.path) == ["", "a", "b"])
                #expect(content.files[1].data == content.files[2].data)
                #expect(".." + String(decoding: content.files[1].data, as: UTF8.self) == content.name)
                seen.insert(content.name)
            }
            #expect(seen.count > 2)
            #expect(try PublishedContent.read(volume, limit: 1 << 20).name == "..300")
        }
    }
}
