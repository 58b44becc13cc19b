import Glibc
import LinuxSystem
import Synchronization
import Testing

/// A libvirtd of a scene's own: in its own mount namespace, it has its own /etc/libvirt and /run/libvirt.
final class Libvirtd: Sendable {
    private let daemon: Daemon
    private let directory: String
    private let isOver = Atomic(false)
    private var socket: String { "\(directory)/socket/libvirt-sock" }
    /// Its URI, which needs no quotation marks in TOML.
    var uri: String { "qemu+unix:///system?socket=\(socket)" }

    /// Why there is none; nil when there can be one.
    static var obstacle: String? {
        for program in ["libvirtd", "virsh", "unshare"] where Lab.program(program) == nil {
            return "no \(program) in PATH"
        }
        return nil
    }

    init(_ scene: Scene) throws {
        directory = try scene.makeDirectory("libvirt")
        try scene.write(
            "libvirt/libvirtd.conf",
            """
            unix_sock_dir = "\(directory)/socket"
            auth_unix_rw = "none"
            auth_unix_ro = "none"

            """)
        // Without virtlogd, and without the mount namespaces in which QEMU's /dev could not be made of this one's.
        try scene.write("libvirt/qemu.conf", "stdio_handler = \"file\"\nnamespaces = []\n")
        // A /dev/kvm with which QEMU can't use KVM has libvirtd ask QEMU for its abilities again and again.
        try scene.write("libvirt/kvm", "")
        try scene.write(
            "libvirt/start",
            """
            set -e
            mkdir -p /etc/libvirt /run/libvirt \(directory)/etc \(directory)/run \(directory)/socket
            cp \(directory)/qemu.conf \(directory)/etc/
            mount --bind \(directory)/etc /etc/libvirt
            mount --bind \(directory)/run /run/libvirt
            if [[ -e /dev/kvm ]] && ! grep -qE '^flags.* (vmx|svm)( |$)' /proc/cpuinfo; then
                chmod 0 \(directory)/kvm
                mount --bind \(directory)/kvm /dev/kvm
            fi
            exec libvirtd -f \(directory)/libvirtd.conf -p \(directory)/pid

            """)
        daemon = Daemon(
            ["unshare", "--mount", "bash", "\(directory)/start"], network: nil, environment: Lab.environment)
        try reapQEMUs()
        try start()
    }

    deinit { isOver.store(true, ordering: .relaxed) }

    /// libvirtd's QEMUs are orphans, which this process inherits, and libvirtd waits until one that has ended is no more.
    private func reapQEMUs() throws {
        try startThread("reaper") { [weak self] in
            var pids: Set<pid_t> = []
            while let self, !self.isOver.load(ordering: .relaxed) {
                let directory = "\(self.directory)/run/qemu"
                for name in (try? directoryNames(directory)) ?? [] where name.hasSuffix(".pid") {
                    let text = (try? readText("\(directory)/\(name)")) ?? ""
                    if let pid = pid_t(text.filter { !$0.isWhitespace }), pid > 1 { pids.insert(pid) }
                }
                pids = pids.filter { waitpid($0, nil, WNOHANG) != $0 }
                usleep(50_000)
            }
        }
    }

    /// Starts it, and waits until it answers: the first one of a host asks each QEMU for its abilities.
    func start() throws {
        try daemon.start()
        let deadline = ContinuousClock.now + .seconds(120) * Lab.patience
        while try Command("virsh", ["-c", uri, "capabilities"], environment: Lab.environment).finish().code != 0 {
            guard ContinuousClock.now < deadline else { throw LabError("libvirtd does not answer: \(daemon.log)") }
            usleep(200_000)
        }
    }

    /// Ends it. Its QEMUs go on.
    func stop() throws { try daemon.stop() }

    /// QEMU's process.
    func pid(of domain: String) throws -> pid_t? { pid_t(try readText("\(directory)/run/qemu/\(domain).pid").trimmed) }

    /// Runs `virsh`.
    func virsh(_ words: String...) throws -> Outcome {
        try Command("virsh", ["-c", uri] + words, environment: Lab.environment).finish()
    }
}
