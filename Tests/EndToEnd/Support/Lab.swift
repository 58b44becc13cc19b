import CLinux
import Glibc
import LinuxSystem
import Testing

/// What these tests run on: executables, a guest, a host that can start machines.
enum Lab {
    /// The source tree.
    static let repository = "/" + #filePath.split(separator: "/").dropLast(4).joined(separator: "/")
    /// `MARTLET_BIN`, or what `make build` makes.
    static let binaries = variable("MARTLET_BIN") ?? "\(repository)/.build/release"
    /// `MARTLET_GUEST`, or what `make guest` makes.
    static let guest = variable("MARTLET_GUEST") ?? "\(repository)/.build/guest/own"
    static var hasRootImage: Bool { access("\(guest)/root.erofs", R_OK) == 0 }
    static let martlet = "\(binaries)/martlet"
    /// Things that take long to make and never change.
    static let cache = variable("MARTLET_CACHE") ?? (variable("HOME") ?? "/root") + "/.cache/martlet"
    /// `MARTLET_TEST_DRIVER`: `qemu`, which it is where nothing is said, `kvm` or `libvirt`.
    static let driver = variable("MARTLET_TEST_DRIVER").map(Driver.init(rawValue:)) ?? .qemu
    /// Whoever names a driver wants its tests to run: what is missing is a failure then and no reason to skip.
    static let isDemanded = variable("MARTLET_TEST_DRIVER") != nil
    /// `MARTLET_TEST_LIBVIRT`: the URI of the libvirtd that tests with `libvirt` use.
    static let libvirt = variable("MARTLET_TEST_LIBVIRT") ?? "qemu:///system"
    /// `MARTLET_TEST_DIRECTORY`, where tests keep their bundles: a file system as a host has, not an overlay.
    static let directory = variable("MARTLET_TEST_DIRECTORY") ?? "/tmp"
    /// What test programs get. The hosts's PATH, so that what is found there is found here.
    static let environment = environment()
    /// Longer waits for slow machines: each deadline of a test is multiplied by it.
    static let patience = variable("MARTLET_TEST_PATIENCE").flatMap { Int($0) } ?? 1
    /// Whether `make test-all` runs.
    static let everything = variable("MARTLET_TEST_ALL") != nil
    /// Why other test runs leave a test out.
    static let isLong: Comment = "it takes long (make test-all)"

    /// Why no container can be run here; nil when one can. Printed once.
    static let obstacle: String? = {
        let reason = findObstacle()
        if let reason { print("end-to-end tests are skipped: \(reason)") }
        return reason
    }()

    private static func findObstacle() -> String? {
        if geteuid() != 0 { return "not root" }
        guard let driver else { return "MARTLET_TEST_DRIVER is none of qemu, kvm, libvirt" }
        for program in ["martlet", "martlet-device", "martlet-vmm"] where access("\(binaries)/\(program)", X_OK) != 0 {
            return "no \(binaries)/\(program) (make build)"
        }
        if access("\(guest)/initramfs", R_OK) != 0 { return "no guest image in \(guest) (make guest)" }
        switch driver {
        case .qemu, .libvirt: if program("qemu-system-x86_64") == nil { return "no qemu-system-x86_64 in PATH" }
        case .kvm: if let objection = kvmObjection { return objection }
        }
        if program("busybox") == nil { return "no busybox in PATH" }
        // Orphans become this process's children, so that whatever a run leaves can be found.
        martlet_prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        return nil
    }

    /// The same, with a guest image of one's own, or a directory of programs that come before all others.
    static func environment(guest: String = guest, programs: String? = nil) -> [String] {
        let path = [programs, variable("PATH") ?? "/usr/sbin:/usr/bin:/sbin:/bin"].compactMap { $0 }
        return ["PATH=\(path.joined(separator: ":"))", "HOME=/root", "LANG=C.UTF-8", "MARTLET_GUEST=\(guest)"]
    }

    static var isReady: Bool { obstacle == nil }

    /// A /dev/kvm on a processor without vmx and svm runs no Linux guest.
    private static var kvmObjection: String? {
        if access("/dev/kvm", R_OK | W_OK) != 0 { return "no /dev/kvm" }
        let flags = (Leftovers.read("/proc/cpuinfo") ?? "").split(separator: "\n").first { $0.hasPrefix("flags") } ?? ""
        let has = flags.split(separator: " ").contains { $0 == "vmx" || $0 == "svm" }
        return has ? nil : "the processor has neither vmx nor svm (make lab has)"
    }

    static func variable(_ name: String) -> String? {
        getenv(name).map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
    }

    /// The absolute path of a program in PATH.
    static func program(_ name: String) -> String? {
        (variable("PATH") ?? "/usr/bin:/bin").split(separator: ":").map { "\($0)/\(name)" }
            .first { access($0, X_OK) == 0 }
    }
}

/// A failure of the harness itself.
struct LabError: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}
