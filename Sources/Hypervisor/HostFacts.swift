import CLinux
import Glibc
import GuestKernel
import LinuxSystem

/// What a host offers for running virtual machines, as values: `martlet check` prints them, the choice of a driver
/// follows from them.
public struct HostFacts: Sendable, Equatable {
    public enum KVM: Sendable, Equatable {
        /// `KVM_GET_API_VERSION`; 12 since Linux 2.6.22.
        case version(Int)
        /// /dev/kvm does not open, or does not answer.
        case unusable(String)
    }

    public enum CgroupVersions: String, Sendable, Equatable { case none, v1, hybrid, v2 }

    /// A file that is needed: its size in bytes, or why it can't be used.
    public enum File: Sendable, Equatable {
        case present(path: String, bytes: Int64)
        case absent(String)
    }

    public enum Program: Sendable, Equatable {
        /// Absolute path, and the version where it was asked for.
        case present(path: String, version: String?)
        case absent(String)
    }

    public var isRoot: Bool
    public var kvm: KVM
    /// `vmx` (Intel) or `svm` (AMD); nil where the processor shows neither.
    public var virtualization: String?
    public var hasVsock: Bool
    /// Those of /dev/vhost-net and /dev/vhost-vsock that are there.
    public var vhostDevices: [String]
    public var controlGroups: CgroupVersions
    public var qemu: Program
    public var kernel: File
    public var initramfs: File
    /// What the kernel says of faults of the processor by which a guest may read what is not its own, by their names: `smt`, `l1tf`,
    /// `mds`. Without those of which it says nothing.
    public var mitigations: [Mitigation] = []

    /// What the kernel says of a fault of the processor.
    public struct Mitigation: Sendable, Equatable {
        public var name: String
        public var text: String

        /// Whether a guest may read what is not its own.
        public var isOpen: Bool {
            name == "smt" ? text == "on" : text.contains("vulnerable") || text.hasPrefix("Vulnerable")
        }
    }

    /// Looks at this host.
    ///
    /// - Parameters:
    ///   - qemu: a path of QEMU, or a name to be found in PATH.
    ///   - kernel: the guest's kernel, or why there is none.
    ///   - initramfs: the guest's initial file system, or why there is none.
    ///   - isForReport: whether what no decision depends on is looked at too: the CPU's faults, and QEMU's version, for which QEMU is
    ///     run for some ten milliseconds.
    public static func gather(
        qemu: String, kernel: Result<String, HypervisorError>, initramfs: Result<String, HypervisorError>,
        isForReport: Bool = true
    ) -> HostFacts {
        HostFacts(
            isRoot: geteuid() == 0, kvm: probeKVM(), virtualization: probeProcessor(),
            hasVsock: access("/dev/vsock", F_OK) == 0,
            vhostDevices: ["/dev/vhost-net", "/dev/vhost-vsock"].filter { access($0, F_OK) == 0 },
            controlGroups: probeCgroups(), qemu: probeQEMU(qemu, isForReport),
            kernel: probe(kernel) { path in _ = try KernelImage.inspect(path) },
            initramfs: probe(initramfs) { _ in }, mitigations: isForReport ? mitigations() : [])
    }

    /// Documentation/ABI/testing/sysfs-devices-system-cpu.
    ///
    /// - Parameter directory: of the processors.
    static func mitigations(_ directory: String = "/sys/devices/system/cpu") -> [Mitigation] {
        [("smt", "smt/control"), ("l1tf", "vulnerabilities/l1tf"), ("mds", "vulnerabilities/mds")].compactMap {
            name, file in
            guard let text = try? readText("\(directory)/\(file)", limit: 4096) else { return nil }
            let line = printable(String(text.prefix { $0 != "\n" }))
            return line.isEmpty ? nil : Mitigation(name: name, text: line)
        }
    }

    private static func probeKVM() -> KVM {
        do {
            let device = try OwnedDescriptor.open("/dev/kvm", O_RDWR)
            let getAPIVersion: UInt = 0xAE00  // linux/kvm.h: _IO(KVMIO, 0x00)
            return .version(
                Int(try check("KVM_GET_API_VERSION", "/dev/kvm", martlet_ioctl_int(device.raw, getAPIVersion, 0))))
        } catch {
            return .unusable("\(error)")
        }
    }

    private static func probeProcessor() -> String? {
        guard let text = try? readText("/proc/cpuinfo"),
            let flags = text.split(separator: "\n").first(where: { $0.hasPrefix("flags") })
        else { return nil }
        return flags.split(separator: " ").first { $0 == "vmx" || $0 == "svm" }.map(String.init)
    }

    private static func probeCgroups() -> CgroupVersions {
        guard let mounts = try? readText("/proc/self/mounts") else { return .none }
        var types: [Substring: Substring] = [:]
        for line in mounts.split(separator: "\n") {
            let words = line.split(separator: " ")
            if words.count > 2 { types[words[1]] = words[2] }  // what is mounted last hides what is below
        }
        if types["/sys/fs/cgroup"] == "cgroup2" { return .v2 }
        let hasV1 = types.values.contains("cgroup")
        if types["/sys/fs/cgroup/unified"] == "cgroup2" { return hasV1 ? .hybrid : .v2 }
        return hasV1 ? .v1 : .none
    }

    private static func probe(
        _ path: Result<String, HypervisorError>, _ inspect: (String) throws -> Void
    ) -> File {
        do {
            let path = try path.get()
            let file = try OwnedDescriptor.open(path, O_RDONLY)
            var facts = stat()
            try check("stat", path, fstat(file.raw, &facts))
            guard facts.st_mode & S_IFMT == S_IFREG else { return .absent("\(path): not a regular file") }
            guard facts.st_size > 0 else { return .absent("\(path): empty") }
            try inspect(path)
            return .present(path: path, bytes: Int64(facts.st_size))
        } catch {
            return .absent("\(error)")
        }
    }

    private static func probeQEMU(_ name: String, _ askVersion: Bool) -> Program {
        guard let path = findProgram(name) else {
            return .absent(name.contains("/") ? "\(name): not an executable file" : "\(name): not in PATH")
        }
        guard askVersion else { return .present(path: path, version: nil) }
        do {
            return .present(path: path, version: try version(of: path))
        } catch {
            return .absent("\(path) --version: \(error)")
        }
    }

    /// The absolute path of a program that is given by path or is to be found in PATH; nil where there is none.
    public static func findProgram(_ name: String) -> String? {
        func executable(_ path: String) -> String? {
            var facts = stat()
            guard stat(path, &facts) == 0, facts.st_mode & S_IFMT == S_IFREG, access(path, X_OK) == 0,
                let resolved = realpath(path, nil)
            else { return nil }
            defer { free(resolved) }
            return String(cString: resolved)
        }
        if name.contains("/") { return executable(name) }
        let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/local/bin:/usr/bin:/bin"
        return path.split(separator: ":").lazy.compactMap { executable("\($0)/\(name)") }.first
    }

    /// `7.2.22 (Debian …)` of `QEMU emulator version 7.2.22 (Debian …)`.
    private static func version(of path: String) throws -> String {
        let (child, output) = try ChildProcess.withPipe(
            "qemu --version",
            .init(
                executable: path, arguments: ["--version"], descriptors: [-1, ChildProcess.pipe, -1],
                diesWithParent: true))
        guard let end = child.waitForEnd(timeout: .seconds(10)) else {
            child.signal(SIGKILL)
            throw HypervisorError("no answer in 10 s")
        }
        // The program has ended and its few lines fit in the pipe: this read never blocks for long.
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = poll(output.raw) ? read(output.raw, &bytes, bytes.count) : 0
        guard end == .exited(0) else { throw HypervisorError("\(end)") }
        let line = String(decoding: bytes.prefix(max(count, 0)), as: UTF8.self).prefix { $0 != "\n" }
        let marker = "QEMU emulator version "
        guard line.hasPrefix(marker) else { throw HypervisorError("answered \"\(line)\", not a version of QEMU") }
        return String(line.dropFirst(marker.count))
    }

    private static func poll(_ descriptor: Int32) -> Bool {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return Glibc.poll(&entry, 1, 0) == 1
    }
}
