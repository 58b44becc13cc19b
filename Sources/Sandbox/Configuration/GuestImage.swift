import Glibc
import LinuxSystem

/// The kernel that a machine boots, and what it finds its first process in.
public struct GuestImage: Sendable, Equatable, Codable {
    /// Absolute path.
    public var kernel: String
    /// Absolute path.
    public var initramfs: String
    /// Absolute path of the root image, which a machine may map in place of the initramfs; nil: there is none for this kernel.
    public var rootImage: String?

    public init(kernel: String, initramfs: String) {
        self.kernel = kernel
        self.initramfs = initramfs
    }

    /// The names of a kernel in a guest directory, best first.
    static let kernelNames = ["vmlinux", "bzImage", "vmlinuz"]
    /// The names of an initramfs in a guest directory, best first: an archive that is not compressed starts faster.
    static let initramfsNames = ["initramfs.cpio", "initramfs"]
    /// The name of a root image in a guest directory.
    static let rootImageName = "root.erofs"

    /// The directories that are searched for a guest image, in order. If `MARTLET_GUEST` is set, only its directory is searched.
    public static func directories(executable: String, environment: String?) -> [String] {
        if let environment, !environment.isEmpty { return [absolute(environment)] }
        let binaries = parent(executable)
        var directories = ["\(parent(binaries))/share/martlet/guest"]
        // A development build: .build/release/martlet, or .build/x86_64-unknown-linux-gnu/release/martlet.
        var above = binaries
        while above.count > 1 {
            if above.hasSuffix("/.build") { directories.append("\(above)/guest/own") }
            above = parent(above)
        }
        return directories + ["/usr/share/martlet/guest", "/usr/local/share/martlet/guest"]
    }

    /// The image that `configuration` names; for a part that it does not name, the first one found.
    ///
    /// - Parameters:
    ///   - executable: absolute path of the running program.
    ///   - environment: the value of `MARTLET_GUEST`.
    /// - Throws: `ConfigurationError` with the names and directories that were searched.
    public static func locate(
        _ configuration: Configuration.VM, executable: String = ownPath(), environment: String? = guestVariable()
    ) throws(ConfigurationError) -> GuestImage {
        var image = GuestImage(
            kernel: try locateKernel(configuration, executable: executable, environment: environment),
            initramfs: try locateInitramfs(configuration, executable: executable, environment: environment))
        // A kernel or an initramfs of somebody's own does not go with the root image beside it.
        guard configuration.kernel == nil, configuration.initramfs == nil else { return image }
        let rootImage = "\(parent(image.kernel))/\(rootImageName)"
        if parent(image.initramfs) == parent(image.kernel), access(rootImage, R_OK) == 0 { image.rootImage = rootImage }
        return image
    }

    /// The least memory in which the kernel starts, MiB, from the manifest beside it (docs/guest.md); nil when there is none.
    public var minimumMemoryMiB: Int? {
        guard let slash = kernel.lastIndex(of: "/"), let text = try? readText(kernel[..<slash] + "/manifest")
        else { return nil }
        let line = text.split(separator: "\n").first { $0.hasPrefix("memory_mib=") }
        return line.flatMap { Int($0.dropFirst("memory_mib=".count)) }
    }

    /// Locates the kernel only, as `locate` does.
    public static func locateKernel(
        _ configuration: Configuration.VM, executable: String = ownPath(), environment: String? = guestVariable()
    ) throws(ConfigurationError) -> String {
        let directories = directories(executable: executable, environment: environment)
        return try choose(configuration.kernel, "guest kernel", "vm.kernel", kernelNames, directories)
    }

    /// Locates the initramfs only, as `locate` does.
    public static func locateInitramfs(
        _ configuration: Configuration.VM, executable: String = ownPath(), environment: String? = guestVariable()
    ) throws(ConfigurationError) -> String {
        let directories = directories(executable: executable, environment: environment)
        return try choose(configuration.initramfs, "guest initramfs", "vm.initramfs", initramfsNames, directories)
    }

    /// The image whose first process is `martlet-bench-guest`, in `.build/guest/bench` of the source tree in which this program was
    /// built.
    package static func locateBench(
        kernel: String?, initramfs: String?, executable: String = ownPath()
    ) throws(ConfigurationError) -> GuestImage {
        let own = "/guest/own"
        let directories = directories(executable: executable, environment: nil)
            .filter { $0.hasSuffix("/.build" + own) }.map { String($0.dropLast(own.count)) + "/guest/bench" }
        return GuestImage(
            kernel: try choose(kernel, "guest kernel", "--kernel", kernelNames, directories, make: "guest-bench"),
            initramfs: try choose(
                initramfs, "guest initramfs", "--initramfs", initramfsNames, directories, make: "guest-bench"))
    }

    private static func choose(
        _ path: String?, _ what: String, _ key: String, _ names: [String], _ directories: [String],
        make target: String = "guest"
    ) throws(ConfigurationError) -> String {
        if let path {
            if access(path, R_OK) == 0 { return path }
            throw ConfigurationError(subject: "\(what) \(path) (\(key))", reason: String(cString: strerror(errno)))
        }
        for directory in directories {
            for name in names where access("\(directory)/\(name)", R_OK) == 0 { return "\(directory)/\(name)" }
        }
        throw ConfigurationError(
            subject: what,
            reason: "no \(names.joined(separator: " or ")) in \(directories.joined(separator: ", ")): build it with "
                + "`make \(target)`, or set \(key)")
    }

    /// The absolute path of the running program, also where an upgrade has put another file there since it started.
    public static func ownPath() -> String {
        guard let path = symbolicLink("/proc/self/exe") else { return "/" }
        let replaced = " (deleted)"  // proc(5)
        return path.hasSuffix(replaced) ? String(path.dropLast(replaced.count)) : path
    }

    /// The value of `MARTLET_GUEST`.
    public static func guestVariable() -> String? { getenv("MARTLET_GUEST").map { String(cString: $0) } }

    /// What programs of Martlet's own get of the environment to find the same image.
    static func guestEnvironment() -> [String] { guestVariable().map { ["MARTLET_GUEST=\($0)"] } ?? [] }

    private static func absolute(_ path: String) -> String {
        guard let resolved = realpath(path, nil) else { return path }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    private static func parent(_ path: String) -> String {
        guard let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return "/" }
        return String(path[..<slash])
    }
}
