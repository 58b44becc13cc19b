import Glibc
import LinuxSystem
import Testing

extension Containers {
    /// containerd's Transfer service, as its clients use it: without containerd, which does not pass it on yet.
    @MainActor @Suite(.enabled(if: ShimPod.obstacle == nil, "\(ShimPod.obstacle ?? "")"))
    struct TransferTests {
        private typealias Mount = ShimPod.RootMount

        /// A running container whose root is a disk of the machine.
        private func play(_ body: (ShimPod, Scene) throws -> Void) throws {
            try ShimPod.play { pod, scene, bundle in
                let tree = try scene.makeDirectory("tree")
                _ = try Rootfs.busybox.place(in: tree)
                try Command.shell(
                    "truncate -s 256M \(tree)/image && mkfs.ext4 -q -F -d \(tree)/rootfs \(tree)/image",
                    within: .seconds(120))
                try pod.run(
                    pod.id, bundle: bundle, [Mount(type: "ext4", source: "\(tree)/image", options: ["loop", "rw"])])
                try body(pod, scene)
                try pod.kill(pod.id)
                _ = try pod.end(of: pod.id)
                try pod.delete(pod.id)
            }
        }

        /// A tar archive that this machine's tar makes of a directory.
        private func archive(_ scene: Scene, _ name: String, _ script: String) throws -> [UInt8] {
            try Command.shell("cd \(try scene.makeDirectory(name)) && { \(script); } && tar -cf ../\(name).tar *")
            let file = try OwnedDescriptor.open("\(scene.directory)/\(name).tar", O_RDONLY)
            var facts = stat()
            fstat(file.raw, &facts)
            var bytes = [UInt8](repeating: 0, count: Int(facts.st_size))
            _ = try bytes.withUnsafeMutableBytes { try readAll(into: $0, from: file.raw, at: 0, name) }
            return bytes
        }

        private func unpacked(_ scene: Scene, _ bytes: [UInt8], _ name: String) throws -> String {
            let directory = try scene.makeDirectory(name)
            let file = try scene.write("\(name).tar", bytes: bytes[...])
            try Command.run("tar", ["-xpf", file, "-C", directory])
            return directory
        }

        @Test func filesGoInAndOut() throws {
            try play { pod, scene in
                // The services are there: containerd's tests ask in this way.
                #expect(throws: TransferClient.Failure("invalidArgument")) { try pod.transfers().probe() }
                let text = "transfer-test-data-12345\n"
                let tar = try archive(scene, "small", "printf '\(text)' >transferred.txt; mkdir d; ln -s /nowhere d/l")
                try pod.transfers().copyIn(tar, to: "/tmp/new/place", of: pod.id)
                let back = try pod.transfers().copyOut("/tmp/new/place/transferred.txt", of: pod.id)
                #expect(try readText("\(unpacked(scene, back, "one"))/transferred.txt") == text)
                let read = try pod.exec(["cat", "/tmp/new/place/transferred.txt"], in: pod.id).result()
                #expect(read == ShimResult(code: 0, text: text))
                // A directory, and its entry alone.
                let all = try unpacked(scene, try pod.transfers().copyOut("/tmp/new", of: pod.id), "all")
                #expect(symbolicLink("\(all)/new/place/d/l") == "/nowhere")
                let entry = try unpacked(
                    scene, try pod.transfers().copyOut("tmp/new", of: pod.id, isShallow: true), "entry")
                #expect(try directoryNames("\(entry)/new").isEmpty)
            }
        }

        @Test func largeFilesComeWholeAndOwnersAreKeptOnRequest() throws {
            try play { pod, scene in
                let tar = try archive(scene, "large", "head -c \(32 << 20) /dev/urandom >file; chown 12:34 file")
                try pod.transfers().copyIn(tar, to: "/a", of: pod.id)
                try pod.transfers().copyIn(tar, to: "/b", of: pod.id, keepsOwners: true)
                let facts = try pod.exec(["stat", "-c", "%u:%g %s", "/a/file", "/b/file"], in: pod.id).result()
                #expect(facts == ShimResult(code: 0, text: "0:0 \(32 << 20)\n12:34 \(32 << 20)\n"))
                let back = try unpacked(scene, try pod.transfers().copyOut("/b/file", of: pod.id), "back")
                try Command.run("cmp", ["\(scene.directory)/large/file", "\(back)/file"])
                // The command line's copy goes the same way.
                let outcome = try Command(
                    Lab.martlet,
                    [
                        "--root", "\(scene.directory)/pods", "pod", "cp", "\(pod.id):/b/file",
                        "\(scene.directory)/again",
                    ]
                ).finish()
                #expect(outcome.code == 0, "\(outcome.errorText)")
                try Command.run("cmp", ["\(scene.directory)/large/file", "\(scene.directory)/again"])
            }
        }

        @Test func faultsAreErrorsAndNothingHangs() throws {
            try play { pod, scene in
                for path in [
                    "/.fuzz-missing/missing.txt", "/.fuzz-missing/a/b", "/" + String(repeating: "a", count: 200),
                ] {
                    #expect(throws: TransferClient.Failure("notFound")) {
                        try pod.transfers().copyOut(path, of: pod.id, isShallow: true)
                    }
                }
                #expect(throws: (any Error).self) { try pod.transfers().copyOut("/etc", of: "no-such-container") }
                let tar = try archive(scene, "t", "head -c 3000000 /dev/zero >file")
                #expect(throws: TransferClient.Failure("unimplemented")) {
                    try pod.transfers().copyIn(tar, to: "/c", of: pod.id, mediaType: "application/zip")
                }
                #expect(throws: TransferClient.Failure("invalidArgument")) {
                    try pod.transfers().copyIn(Array(tar.prefix(2_000_000)), to: "/c", of: pod.id)
                }
                #expect(throws: TransferClient.Failure("invalidArgument")) {
                    try pod.transfers().copyIn(Array(repeating: 7, count: 5000), to: "/c", of: pod.id)
                }
                // A client that sends more than it may, and one that goes in the middle.
                #expect(throws: TransferClient.Failure("invalidArgument")) {
                    try pod.transfers().copyIn(tar, to: "/c", of: pod.id, ignoringWindow: true)
                }
                try pod.transfers().leaveInTheMiddle(of: pod.id)
                try FileCopyTests.waitForCopies(
                    of: pod.id, toEnd: ["--root", "\(scene.directory)/pods"])
                try pod.transfers().copyIn(tar, to: "/c", of: pod.id)
            }
        }
    }
}
