import LinuxSystem

/// Root file systems for containers whose engine is the test.
extension Scene {
    /// A directory with busybox, as a bind mount. Containers that have the same share what they write.
    func busybox() throws -> [ShimPod.RootMount] {
        let tree = try makeDirectory("tree-\(newID())")
        _ = try Rootfs.busybox.place(in: tree)
        return [.init(type: "bind", source: "\(tree)/rootfs", options: ["rbind", "rw"])]
    }

    /// An image of EROFS with what `script` makes in a directory.
    func layer(_ name: String, _ script: String) throws -> String {
        let path = "\(directory)/\(name).erofs"
        try Command.shell(
            "d=\(directory)/\(name); mkdir $d; cd $d; \(script); mkfs.erofs \(path) $d >/dev/null",
            within: .seconds(120))
        return path
    }

    /// An image of EROFS with busybox.
    func busyboxLayer() throws -> String {
        let tree = try makeDirectory("tree-\(newID())")
        _ = try Rootfs.busybox.place(in: tree)
        let path = "\(tree)/busybox.erofs"
        try Command.shell("mkfs.erofs \(path) \(tree)/rootfs >/dev/null", within: .seconds(120))
        return path
    }

    /// Layers with an image of ext4 above them, in the terms of containerd's EROFS snapshotter.
    ///
    /// - Parameter layers: images of EROFS, the lowest first.
    func stack(_ layers: [String]) throws -> (mounts: [ShimPod.RootMount], image: String) {
        let image = "\(directory)/rwlayer-\(newID()).img"
        try Command.shell("truncate -s 32M \(image) && mkfs.ext4 -q -F \(image)")
        var mounts = [
            ShimPod.RootMount(type: "mkfs/ext4", source: image, options: ["X-containerd.mkfs.fs=ext4", "rw", "loop"])
        ]
        mounts += layers.reversed().map { .init(type: "erofs", source: $0, options: ["ro", "loop"]) }
        mounts.append(
            .init(
                type: "format/mkdir/overlay", source: "overlay",
                options: [
                    "X-containerd.mkdir.path={{ mount 0 }}/upper:0755",
                    "X-containerd.mkdir.path={{ mount 0 }}/work:0755",
                    "workdir={{ mount 0 }}/work", "upperdir={{ mount 0 }}/upper",
                    "lowerdir={{ overlay 1 \(layers.count) }}",
                ]))
        return (mounts, image)
    }
}
