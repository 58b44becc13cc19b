import Glibc
import Hypervisor
import LinuxSystem

/// The host, and what is installed.
extension Doctor {
    func host() -> [Finding] {
        let facts = HostFacts.gather(configuration, isForReport: false)
        var found = programs()
        for line in facts.lines(
            driver: configuration.hypervisor.rawValue, accelerator: configuration.qemu.accelerator.rawValue)
        where line.verdict == .missing {
            found.append(Finding(.fault, line.subject, line.text, remedy: Self.remedy(of: line.subject)))
        }
        if let objection = facts.kvmObjection, [.auto, .kvm].contains(configuration.hypervisor) {
            found.append(
                Finding(
                    .advice, "kvm", "\(objection): pods run on an emulated CPU, many times slower",
                    remedy: access("/dev/kvm", F_OK) == 0
                        ? "run on hardware, or enable nested virtualization for this machine"
                        : "enable virtualization in the firmware, then: modprobe kvm_intel || modprobe kvm_amd"))
        }
        if facts.controlGroups == .none {
            found.append(
                Finding(
                    .advice, "cgroups", "none are mounted: pods have no limits on the host",
                    remedy: "mount -t cgroup2 none /sys/fs/cgroup"))
        }
        if access("/dev/net/tun", R_OK | W_OK) != 0 {
            found.append(
                Finding(
                    .fault, "network", "/dev/net/tun can't be opened: pods have no interfaces", remedy: "modprobe tun"))
        }
        return found
    }

    /// Martlet's own programs.
    private func programs() -> [Finding] {
        ["martlet-vmm", "martlet-device", "containerd-shim-martlet-v2"].compactMap { name in
            do {
                _ = try Programs.own(name)
                return nil
            } catch { return Finding(.fault, "installation", "\(error)", remedy: "install the package martlet again") }
        }
    }

    private static func remedy(of subject: String) -> String {
        switch subject {
        case "user": "run it as root"
        case "qemu": "apt install qemu-system-x86"
        case "guest kernel", "guest initramfs": "install the package martlet-guest, or: make guest"
        default: "martlet check shows what the host has"
        }
    }

    // MARK: Resources

    /// Memory, disks, users.
    func resources() -> [Finding] {
        var found: [Finding] = []
        let hostMiB = Int(sysconf(Int32(_SC_PHYS_PAGES))) / 256
        if configuration.vm.memoryMiB > hostMiB {
            found.append(
                Finding(
                    .fault, "vm.memory_mib", "\(configuration.vm.memoryMiB) MiB for each pod; the host has \(hostMiB)",
                    remedy: "make vm.memory_mib smaller"))
        }
        for (name, path) in [
            ("paths.root", configuration.paths.root), ("template.directory", configuration.template.directory),
        ] {
            guard let free = Self.freeMiB(path), free < 64 else { continue }
            found.append(
                Finding(
                    .fault, name, "\(free) MiB are free in \(path)",
                    remedy: "make room there, or name another directory"))
        }
        let users =
            UInt64(configuration.jail.firstUser)..<UInt64(configuration.jail.firstUser + configuration.jail.users)
        for (file, range) in takenUsers() where range.overlaps(users) {
            found.append(
                Finding(
                    .fault, "jail.first_user",
                    "the users of pods, \(users.lowerBound) to \(users.upperBound - 1), are also in \(file) (\(range.lowerBound) to \(range.upperBound - 1))",
                    remedy: "choose jail.first_user outside of that"))
            break
        }
        if PodUser.isShared(configuration.jail) {
            found.append(
                Finding(
                    .advice, "jail.users", "this user namespace has a single id: all pods run as the same user",
                    remedy: "run it in a namespace with more ids"))
        }
        return found
    }

    private static func freeMiB(_ path: String) -> UInt64? {
        var facts = statvfs()
        var path = path
        while statvfs(path, &facts) != 0 {
            guard path.count > 1, let slash = path.lastIndex(of: "/") else { return nil }
            path = slash == path.startIndex ? "/" : String(path[..<slash])
        }
        return (UInt64(facts.f_bavail) * UInt64(facts.f_frsize)) >> 20
    }

    /// The ids that others have (passwd(5), subuid(5)).
    private func takenUsers() -> [(file: String, Range<UInt64>)] {
        func lines(_ name: String) -> [[Substring]] {
            ((try? readText("\(etc)/\(name)")) ?? "").split(separator: "\n")
                .map { $0.split(separator: ":", omittingEmptySubsequences: false) }
        }
        let users = lines("passwd").compactMap { fields in
            fields.count > 2 ? UInt64(fields[2]).map { ("\(etc)/passwd", $0..<$0 + 1) } : nil
        }
        let ranges = lines("subuid").compactMap { fields -> (String, Range<UInt64>)? in
            guard fields.count > 2, let first = UInt32(fields[1]), let count = UInt32(fields[2]) else { return nil }
            return ("\(etc)/subuid", UInt64(first)..<UInt64(first) + UInt64(count))
        }
        return users + ranges
    }
}
