import Glibc
import LinuxSystem
import Synchronization

/// A container's root file system.
enum Rootfs {
    /// A fresh one in the bundle: busybox with a link for each applet, passwd and group.
    case busybox
    /// Debian 12 with apt, made once and kept in the cache: it must not be written to.
    case debian
    /// Debian 12 with systemd; a copy, as systemd writes.
    case systemd
    /// This path.
    case directory(String)

    /// Why a container of `systemd` can't be tried; nil: it can.
    static var systemdObstacle: String? {
        Lab.program("mmdebstrap") == nil ? "no mmdebstrap in PATH" : Containerd.obstacle
    }

    /// Makes it for a bundle; answers what root.path says.
    func place(in bundle: String) throws -> String {
        switch self {
        case .directory(let path): return path
        case .debian: return try Self.debianDirectory()
        case .systemd:
            let arguments = ["--variant=minbase", "--quiet", "--include=systemd-sysv,dbus", "bookworm"]
            try Command.run(
                "cp", ["-a", "--reflink=auto", Self.debianDirectory(arguments), "\(bundle)/rootfs"],
                within: .seconds(120))
            return "rootfs"
        case .busybox:
            let root = "\(bundle)/rootfs"
            guard let busybox = Lab.program("busybox") else { throw LabError("no busybox in PATH") }
            try Command.shell(
                """
                mkdir -p \(root)/{bin,dev,etc,proc,sys,tmp,root,run,mnt}
                chmod 1777 \(root)/tmp
                cp \(busybox) \(root)/bin/busybox
                chroot \(root) /bin/busybox --install -s /bin
                printf 'root:x:0:0:root:/root:/bin/sh\\nnobody:x:65534:65534:nobody:/:/bin/sh\\n' >\(root)/etc/passwd
                printf 'root:x:0:\\nnogroup:x:65534:\\n' >\(root)/etc/group
                """)
            return "rootfs"
        }
    }

    private static let lock = Mutex(false)

    /// - Parameter arguments: of mmdebstrap.
    static func debianDirectory(
        _ arguments: [String] = ["--variant=apt", "--quiet", "bookworm"]
    ) throws -> String {
        let path = "\(Lab.cache)/rootfs-debian-\(fingerprint(arguments.joined(separator: " ")))"
        try lock.withLock { _ in
            if access(path, F_OK) == 0 { return }
            print("making a Debian root file system in \(path) (once, about two minutes)")
            try Command.shell("mkdir -p \(Lab.cache); rm -rf \(path) \(path).new")
            try Command.run("mmdebstrap", arguments + ["\(path).new"], within: .seconds(900))
            try Command.run("mv", ["\(path).new", path])
        }
        return path
    }

    /// A short name for some text (FNV-1a).
    static func fingerprint(_ text: String) -> String {
        String(text.utf8.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }, radix: 16)
    }
}

/// C programs of Tests/EndToEnd/Programs, linked statically, for containers and the host.
enum Program {
    /// The absolute path of the compiled program `name`, whose source is `name`.c or the directory `name`.
    static func path(_ name: String) throws -> String {
        let programs = "\(Lab.repository)/Tests/EndToEnd/Programs"
        let parts = ((try? directoryNames("\(programs)/\(name)")) ?? []).sorted().map { "\(programs)/\(name)/\($0)" }
        let files = parts.isEmpty ? ["\(programs)/\(name).c"] : parts
        let text = try files.map { file in
            guard let text = Leftovers.read(file) else { throw LabError("no \(file)") }
            return text
        }.joined()
        let directory = "\(Lab.cache)/programs"
        let path = "\(directory)/\(name)-\(Rootfs.fingerprint(text))"
        if access(path, X_OK) == 0 { return path }
        try Command.run("mkdir", ["-p", directory])
        try Command.run(
            "gcc",
            ["-static", "-O2", "-Wall", "-Werror", "-o", "\(path).\(getpid())"] + files.filter { $0.hasSuffix(".c") }
                + ["-lpthread", "-lz"],
            within: .seconds(120))
        try Command.run("mv", ["\(path).\(getpid())", path])
        return path
    }

    /// Copies the compiled program `name` into /bin of a bundle's root file system.
    static func install(_ name: String, in bundle: String) throws {
        // Replaces a symbolic link of an applet instead of following it, which would overwrite the host's busybox.
        try Command.run("cp", ["--remove-destination", path(name), "\(bundle)/rootfs/bin/\(name)"])
    }
}
