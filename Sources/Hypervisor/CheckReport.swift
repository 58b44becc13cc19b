/// One line of `martlet check`.
public struct CheckLine: Sendable, Equatable, CustomStringConvertible {
    public enum Verdict: String, Sendable {
        case ok
        /// Slower or less, but it works.
        case warn
        /// Nothing runs without it.
        case missing
    }

    public var verdict: Verdict
    public var subject: String
    public var text: String

    public var description: String {
        let padding = String(repeating: " ", count: max(1, 9 - verdict.rawValue.count))
        return "\(verdict.rawValue)\(padding)\(subject): \(text)"
    }
}

extension HostFacts {
    /// A line for each thing that matters, the last one for the driver that the configuration leads to.
    public func lines(driver: String, accelerator: String) -> [CheckLine] {
        var lines: [CheckLine] = []
        func add(_ verdict: CheckLine.Verdict, _ subject: String, _ text: String) {
            lines.append(CheckLine(verdict: verdict, subject: subject, text: text))
        }
        isRoot ? add(.ok, "user", "root") : add(.missing, "user", "not root: containers can't be run")
        switch kvm {
        case .version(let version): add(version == 12 ? .ok : .warn, "kvm", "/dev/kvm opens, API version \(version)")
        case .unusable(let reason): add(.warn, "kvm", reason)
        }
        if let virtualization {
            add(.ok, "processor", "has \(virtualization)")
        } else {
            add(.warn, "processor", "neither vmx nor svm: KVM can't run Linux guests here")
        }
        for mitigation in mitigations {
            let advice = mitigation.isOpen && mitigation.name == "smt" ? ": two pods may share a core" : ""
            add(mitigation.isOpen ? .warn : .ok, mitigation.name, mitigation.text + advice)
        }
        hasVsock
            ? add(.ok, "vsock", "/dev/vsock")
            : add(.warn, "vsock", "no /dev/vsock (not needed: the device is Martlet's own)")
        if vhostDevices.isEmpty {
            add(.warn, "vhost", "no vhost-net, no vhost-vsock (not needed: the devices are Martlet's own)")
        } else {
            add(.ok, "vhost", vhostDevices.joined(separator: ", "))
        }
        switch controlGroups {
        case .none: add(.warn, "cgroups", "none mounted")
        case .v1, .v2: add(.ok, "cgroups", controlGroups.rawValue)
        case .hybrid: add(.ok, "cgroups", "hybrid (v1 controllers, v2 at /sys/fs/cgroup/unified)")
        }
        switch qemu {
        case .present(let path, let version): add(.ok, "qemu", path + (version.map { ", version \($0)" } ?? ""))
        case .absent(let reason):
            // Only where it would be needed.
            let verdict =
                kvmObjection == nil && !["qemu", "libvirt"].contains(driver) ? CheckLine.Verdict.warn : .missing
            add(verdict, "qemu", "\(reason) (Debian: apt install qemu-system-x86)")
        }
        for (subject, file) in [("guest kernel", kernel), ("guest initramfs", initramfs)] {
            switch file {
            case .present(let path, let bytes): add(.ok, subject, "\(path), \(Self.megabytes(bytes))")
            case .absent(let reason): add(.missing, subject, Self.without("\(subject): ", reason))
            }
        }
        do {
            add(.ok, "driver", "\(try chooseDriver(driver, accelerator: accelerator))")
        } catch {
            add(.missing, "driver", "none: \(error)")
        }
        return lines
    }

    /// 21.4 MB
    private static func megabytes(_ bytes: Int64) -> String {
        let tenths = (bytes + 50_000) / 100_000
        return "\(tenths / 10).\(tenths % 10) MB"
    }

    private static func without(_ prefix: String, _ text: String) -> String {
        text.hasPrefix(prefix) ? String(text.dropFirst(prefix.count)) : text
    }
}
