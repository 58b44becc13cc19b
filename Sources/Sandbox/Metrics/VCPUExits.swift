import CLinux
import Glibc
import LinuxSystem
import Telemetry

/// How often a machine's vCPUs have left the guest, as the host's KVM counts it in debugfs.
///
/// Source: Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD, whose numbers these are.
enum VCPUExits {
    /// By the names of KVM.
    private static let reasons = [
        ("io_exits", "port"), ("mmio_exits", "register"), ("halt_exits", "halt"), ("irq_exits", "interrupt"),
        ("irq_window_exits", "interrupt_window"), ("pf_taken", "page_fault"), ("hypercalls", "hypercall"),
    ]

    /// nil where this process may not have debugfs, or the kernel has none.
    private static let files: SharedDescriptor? = {
        let root = martlet_kernel_files("debugfs")
        return root < 0 ? nil : SharedDescriptor(OwnedDescriptor(owning: root))
    }()

    /// The counters of the machine of a process; nothing where the kernel does not tell them. Blocks.
    static func readings(of pid: Int32) -> MetricReadings {
        var readings = MetricReadings()
        guard let files, let directory = directory(of: pid, files) else { return readings }
        func number(_ name: String) -> UInt64? {
            guard let file = try? OwnedDescriptor.open("kvm/\(directory)/\(name)", O_RDONLY, at: files.raw) else {
                return nil
            }
            return (try? readText(file.raw, name)).flatMap { UInt64($0.filter(\.isNumber)) }
        }
        if let all = number("exits") { readings.add(.vcpuExits, [], all) }
        for (file, reason) in reasons {
            if let count = number(file) { readings.add(.vcpuExitsByReason, [reason], count) }
        }
        return readings
    }

    /// A machine's directory is named after the process and the descriptor that made it.
    private static func directory(of pid: Int32, _ files: SharedDescriptor) -> String? {
        guard let all = try? OwnedDescriptor.open("kvm", O_RDONLY | O_DIRECTORY, at: files.raw) else { return nil }
        return (try? directoryNames(all.raw, "kvm"))?.first { $0.hasPrefix("\(pid)-") }
    }
}
