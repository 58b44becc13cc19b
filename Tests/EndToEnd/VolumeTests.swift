import Glibc
import LinuxSystem
import OCISpec
import Testing

/// Directories as kubelet makes them for a pod, below a scene's.
private struct KubeletPod {
    let directory: String

    init(_ scene: Scene) throws {
        directory = "\(try scene.makeDirectory("pods"))/uid"
        try Command.shell(
            "mkdir -p \(directory)/volumes/kubernetes.io~{empty-dir,configmap,projected} \(directory)/volume-subpaths")
    }

    /// A memory-backed emptyDir.
    func emptyDir(_ name: String, options: String) throws -> String {
        let path = "\(directory)/volumes/kubernetes.io~empty-dir/\(name)"
        try Command.shell("mkdir \(path) && mount -t tmpfs -o \(options) \(name) \(path)")
        return path
    }

    /// A directory in a volume, bound where kubelet binds a `subPath`.
    func part(_ part: String, of name: String, container: String) throws -> String {
        let path = "\(directory)/volume-subpaths/\(name)/\(container)/0"
        let source = "\(directory)/volumes/kubernetes.io~empty-dir/\(name)/\(part)"
        try Command.shell("mkdir -p \(source) \(path) && mount --bind \(source) \(path)")
        return path
    }

    func configMap(_ name: String) throws -> String {
        let path = "\(directory)/volumes/kubernetes.io~configmap/\(name)"
        try Command.shell("mkdir \(path)")
        return path
    }

    /// A projected volume of a pod with `fsGroup`: a tmpfs with the mode that kubelet gives it, sticky and writable for all.
    func projected(_ name: String, fsGroup: UInt32) throws -> String {
        let path = "\(directory)/volumes/kubernetes.io~projected/\(name)"
        try Command.shell("mkdir \(path) && mount -t tmpfs -o mode=3777,gid=\(fsGroup) \(name) \(path)")
        return path
    }

    /// Publishes files in the steps of AtomicWriter.
    ///
    /// - Parameters:
    ///   - group: the files' group.
    ///   - large: the number of files of 100,000 bytes that are added.
    func publish(
        _ volume: String, _ name: String, _ files: [(name: String, text: String)], group: UInt32 = 77, large: Int = 0
    ) throws {
        var script = "set -e; cd \(volume); old=$(readlink ..data || true); mkdir \(name)\n"
        for file in files {
            script += "printf %s '\(file.text)' >\(name)/\(file.name); chmod 640 \(name)/\(file.name)\n"
        }
        script += "for i in $(seq \(large)); do head -c 100000 /dev/zero >\(name)/large$i; done\n"
        script += "chown -R 0:\(group) \(name); ln -s \(name) ..data_tmp; mv -T ..data_tmp ..data\n"
        for file in files { script += "[ -L \(file.name) ] || ln -s ..data/\(file.name) \(file.name)\n" }
        script += "for link in *; do [ -e \"$link\" ] || rm -f \"$link\"; done; [ -z \"$old\" ] || rm -r \"$old\"\n"
        try Command.shell(script)
    }

    func remove() throws {
        try Command.shell(
            "awk '{print $5}' /proc/self/mountinfo | grep '^\(directory)/' | tac | while read path; do umount $path; done"
        )
    }
}

extension Containers {
    /// Volumes of Kubernetes pods that are in the guest's own memory.
    @Suite struct VolumeTests {
        private func bound(_ path: String, at destination: String, _ options: [String] = ["rbind"]) -> Mount {
            Mount(destination: destination, type: "bind", source: path, options: options)
        }

        @Test func anEmptyDirInMemoryHasItsSize() throws {
            try Scene.play { scene in
                let pod = try KubeletPod(scene)
                defer { #expect(throws: Never.self) { try pod.remove() } }
                let volume = try pod.emptyDir("x", options: "size=2m,mode=2775,gid=77")
                try Command.shell("mkdir -m 750 \(volume)/there; echo host >\(volume)/there/file")
                let script = """
                    grep ' /x ' /proc/mounts | cut -d' ' -f1,3; stat -c '%a %g' /x; cat /x/there/file; stat -c %a /x/there
                    dd if=/dev/zero of=/x/big bs=64k 2>&1 | grep -o 'No space left on device'
                    [ $(stat -c %s /x/big) -gt 1800000 ] && [ $(stat -c %s /x/big) -le 2097152 ] && echo full
                    """
                let outcome = try scene.run(
                    bundle: try scene.bundle(script: script) { $0.mounts.append(bound(volume, at: "/x")) })
                #expect(
                    outcome.lines == ["tmpfs tmpfs", "2775 77", "host", "2750", "No space left on device", "full"],
                    "\(outcome.text)\(outcome.errorText)")
                #expect(access("\(volume)/big", F_OK) != 0, "it is on the host")
                // What can't be there is not hidden.
                try Command.shell("mkfifo \(volume)/there/fifo")
                let refused = try scene.run(
                    bundle: try scene.bundle(script: "true") { $0.mounts.append(bound(volume, at: "/x")) })
                let words = "emptyDir x: \(volume)/there/fifo: a device, socket or fifo in a volume is not supported"
                #expect(refused.code == 1 && refused.errorText.contains(words), "\(refused.errorText)")
            }
        }

        @Test(.enabled(if: Containerd.obstacle == nil, "\(Containerd.obstacle ?? "")"))
        func containersOfAPodShareIt() throws {
            try Containerd.play { containerd, scene in
                let pod = try KubeletPod(scene)
                defer { #expect(throws: Never.self) { try pod.remove() } }
                let volume = try pod.emptyDir("x", options: "size=4m")
                func start(_ id: String, _ mount: String, _ options: [String] = []) throws {
                    let words = ["-d", "--mount", "type=bind,\(mount)"] + options
                    let program = ["/bin/sh", "-c", "while :; do sleep 1; done"]
                    try containerd.begin(Containerd.run(words, id, program)).finishWell()
                }
                func exec(_ id: String, _ script: String) throws -> String {
                    try containerd.succeed(
                        "task", "exec", "--exec-id", scene.newID(), id, "/bin/sh", "-c", script)
                }
                func end(_ id: String) throws {
                    try containerd.succeed("task", "kill", "--signal", "KILL", id)
                    try containerd.wait(for: "STOPPED", of: id)
                    _ = try containerd.ctr("task", "rm", id)
                    try containerd.succeed("container", "rm", id)
                }
                let (first, second, third) = (scene.newID(), scene.newID(), scene.newID())
                let member = ["--annotation", "io.containerd.runc.v2.group=\(first)"]
                try start(first, "src=\(volume),dst=/x,options=rbind:rw")
                #expect(try exec(first, "echo of the first >/x/file") == "")
                try start(second, "src=\(volume),dst=/y,options=rbind:ro", member)
                let read = try exec(second, "cat /y/file; (: >/y/no) 2>/dev/null || echo refused")
                #expect(read == "of the first\nrefused\n")
                // A part of it, of which the guest has heard nothing yet.
                let part = try pod.part("deep/part", of: "x", container: "third")
                try start(third, "src=\(part),dst=/z,options=rbind:rw", member)
                #expect(try exec(third, "echo of the third >/z/file") == "")
                try end(third)
                let whole = try exec(first, "cat /x/deep/part/file; df -k /x | tail -n 1 | awk '{print $2}'")
                #expect(whole == "of the third\n4096\n")
                try end(second)
                try end(first)
            }
        }

        @Test func aConfigMapIsFollowed() throws {
            try Scene.play { scene in
                let pod = try KubeletPod(scene)
                let volume = try pod.configMap("settings")
                try pod.publish(volume, "..1", [("key", "old"), ("other", "x")])
                let script = """
                    cat /config/key; echo; ls -A /config | tr '\\n' ' '; stat -L -c '%a %g' /config/key
                    events /config & until [ "$(cat /config/key)" = new ]; do sleep 0.02; done; echo; echo read
                    until [ "$(cat /config/key)" = newer ]; do sleep 0.02; done; echo read again
                    cat /config/..data/large* | wc -c; kill %1
                    """
                let bundle = try scene.bundle(script: script) {
                    $0.mounts.append(bound(volume, at: "/config", ["rbind", "ro"]))
                }
                try Program.install("events", in: bundle)
                let run = try scene.start(bundle: bundle)
                try run.output?.wait(for: "watching\n")
                #expect(run.output?.text == "old\n..1 ..data key other 640 77\nwatching\n")
                try pod.publish(volume, "..2", [("key", "new"), ("more", "y")])
                try run.output?.wait(for: "read\n", within: .seconds(2))
                for event in ["made ..2", "from ..data_tmp", "to ..data", "made more", "gone other", "gone ..1"] {
                    try run.output?.wait(for: "\(event)\n", within: .seconds(2))
                }
                // Larger than a message.
                try pod.publish(volume, "..3", [("key", "newer")], large: 50)
                try run.output?.wait(for: "read again\n", within: .seconds(10))
                let outcome = try run.finish()
                #expect(outcome.code == 0 && outcome.lines.contains("5000000"), "\(outcome.text)\(outcome.errorText)")
            }
        }

        /// The guest is away while the host changes it, and for longer than a request may take.
        @Test func whatTheGuestMissedComesLater() throws {
            try Scene.play { scene in
                let pod = try KubeletPod(scene)
                let volume = try pod.configMap("settings")
                try pod.publish(volume, "..1", [("key", "old")])
                let bundle = try scene.bundle(
                    script: "echo begun; until [ $(cat /config/key) = new ]; do sleep 0.02; done; echo seen"
                ) { $0.mounts.append(bound(volume, at: "/config")) }
                let id = scene.newID()
                let run = try scene.start(
                    bundle: bundle, id: id,
                    global: scene.configuration(
                        "agent.request_timeout_s = 1\nagent.heartbeat_timeout_ms = 60000"))
                try run.output?.wait(for: "begun\n")
                let machine = try Leftovers.process(Victim.machine.process, in: "\(scene.root)/\(id)/state.json")
                kill(machine, SIGSTOP)
                try pod.publish(volume, "..2", [("key", "new")])
                try run.errors?.wait(for: "did not reach the guest")
                kill(machine, SIGCONT)
                let outcome = try run.finish()
                #expect(outcome.code == 0 && outcome.lines == ["begun", "seen"], "\(outcome.text)\(outcome.errorText)")
            }
        }

        /// A mode that is set when it is published already is a change; one that makes it too large is told of.
        @Test func whatIsPublishedMayChangeInItsPlace() throws {
            try Scene.play { scene in
                let pod = try KubeletPod(scene)
                let volume = try pod.configMap("settings")
                try pod.publish(volume, "..1", [("key", "old")])
                let script = """
                    echo begun; until [ $(stat -L -c %a /config/key) = 600 ]; do sleep 0.02; done; echo seen
                    read line; cat /config/key
                    """
                let bundle = try scene.bundle(script: script) { $0.mounts.append(bound(volume, at: "/config")) }
                let run = try scene.start(
                    bundle: bundle, global: scene.configuration("volumes.copy_limit_mib = 1"), input: .pipe)
                try run.output?.wait(for: "begun\n")
                try Command.shell("chmod 600 \(volume)/..1/key")
                try run.output?.wait(for: "seen\n", within: .seconds(2))
                try pod.publish(volume, "..2", [("key", "new")], large: 11)
                try run.errors?.wait(for: "containers keep the content that it had before", within: .seconds(5))
                run.input?.write("\n")
                let outcome = try run.finish()
                #expect(outcome.lines == ["begun", "seen", "old"], "\(outcome.errorText)")
                #expect(outcome.errorText.contains("configMap settings (\(volume))"), "\(outcome.errorText)")
            }
        }

        /// The kernel follows a link in a sticky directory that all may write to only if the link's owner is its own user or
        /// the directory's owner (fs.protected_symlinks). So owners must be those that kubelet has set. A copy, and a share.
        @Test(arguments: [0, 11])
        func aMemberOfTheGroupReadsAProjectedVolume(large: Int) throws {
            try Scene.play { scene in
                let pod = try KubeletPod(scene)
                defer { #expect(throws: Never.self) { try pod.remove() } }
                let volume = try pod.projected("token", fsGroup: 2000)
                try pod.publish(volume, "..1", [("key", "old")], group: 2000, large: large)
                let script = """
                    cat /proc/sys/fs/protected_symlinks; id -u; stat -c '%a %u %g' /token; stat -c '%u' /token/key
                    stat -L -c '%a %u %g' /token/key; cat /token/key; echo
                    grep ' /token ' /proc/mounts | cut -d' ' -f3
                    until [ "$(cat /token/key)" = new ]; do sleep 0.02; done; echo updated
                    """
                let bundle = try scene.bundle(script: script) {
                    $0.mounts.append(bound(volume, at: "/token", ["rbind", "ro"]))
                    $0.linux?.sysctl["fs.protected_symlinks"] = "1"
                    $0.process?.user = User(uid: 1000, gid: 1000, additionalGids: [2000])
                }
                let run = try scene.start(bundle: bundle, global: scene.configuration("volumes.copy_limit_mib = 1"))
                let kind = large == 0 ? "tmpfs" : "virtiofs"
                try run.output?.wait(for: "\(kind)\n")
                #expect(run.output?.text == "1\n1000\n3777 0 2000\n0\n640 0 2000\nold\n\(kind)\n")
                try pod.publish(volume, "..2", [("key", "new")], group: 2000, large: large)
                let outcome = try run.finish()
                #expect(outcome.code == 0 && outcome.lines.last == "updated", "\(outcome.text)\(outcome.errorText)")
            }
        }

        @Test func aLargeConfigMapIsReadFromTheHost() throws {
            try Scene.play { scene in
                let pod = try KubeletPod(scene)
                let volume = try pod.configMap("settings")
                try pod.publish(volume, "..1", [("key", "value")])
                try Command.shell("head -c 1500000 /dev/zero >\(volume)/..1/large")
                let bundle = try scene.bundle(script: "cat /config/key; grep ' /config ' /proc/mounts | cut -d' ' -f3")
                {
                    $0.mounts.append(bound(volume, at: "/config"))
                }
                let outcome = try scene.run(
                    bundle: bundle, global: scene.configuration("volumes.copy_limit_mib = 1"))
                #expect(outcome.text == "valuevirtiofs\n", "\(outcome.errorText)")
                #expect(outcome.errorText.contains("configMap settings: it has more than the 1048576 bytes"))
            }
        }

        /// Before a machine is started.
        @Test func whatAMachineCannotHaveIsRefusedByName() throws {
            try Scene.play { scene in
                let fifo = "\(scene.directory)/fifo"
                try Command.shell("mkfifo \(fifo)")
                for (mount, words) in [
                    (bound(fifo, at: "/m"), "\(fifo): a bind mount of a fifo"),
                    (bound("/dev/null", at: "/m"), "/dev/null: a bind mount of a device"),
                    (bound("/etc", at: "/m", ["rbind", "rshared"]), "rshared (mountPropagation Bidirectional)"),
                ] {
                    let outcome = try scene.run(bundle: try scene.bundle(script: "true") { $0.mounts.append(mount) })
                    #expect(outcome.code == 1 && outcome.errorText.contains(words), "\(outcome.errorText)")
                }
                let outcome = try scene.run(
                    bundle: try scene.bundle(script: "true") {
                        $0.linux?.devices = [.init(path: "/dev/sda", type: "b", major: 8, minor: 0)]
                    })
                #expect(
                    outcome.code == 1 && outcome.errorText.contains("linux.devices[0]: /dev/sda: a device of the host"),
                    "\(outcome.errorText)")
            }
        }

        /// `ro` holds for the mount itself, as with runc; `rro` for the mounts below too. One that is read-only on the host
        /// stays so.
        @Test func readOnlyIsReadOnly() throws {
            try Scene.play { scene in
                let host = try scene.makeDirectory("host")
                try Command.shell(
                    """
                    mkdir \(host)/below \(host)/fixed; mount -t tmpfs none \(host)/below
                    mount --bind \(host)/below \(host)/fixed; mount -o remount,bind,ro \(host)/fixed
                    """)
                defer { for name in ["fixed", "below"] { umount2("\(host)/\(name)", 0) } }
                for option in ["ro", "rro"] {
                    let script = """
                        for path in /m /m/below /m/fixed; do
                            (: >$path/x && echo written) 2>&1 | grep -oE 'Read-only file system|written'
                        done
                        """
                    let outcome = try scene.run(
                        bundle: try scene.bundle(script: script) {
                            $0.mounts.append(bound(host, at: "/m", ["rbind", option]))
                        })
                    let refused = "Read-only file system"
                    let expected = [refused, option == "ro" ? "written" : refused, refused]
                    #expect(outcome.lines == expected, "\(option): \(outcome.text)\(outcome.errorText)")
                }
            }
        }
    }
}
