import Glibc
import Jail
import LinuxSystem

/// The jail of QEMU's process.
extension QEMUDriver {
    /// What the loader, QEMU and its firmware are read from, where a distribution has them.
    private static let places = [
        "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/qemu", "/usr/share/seabios",
    ]

    /// The plan: in its root directory there are only QEMU, the libraries, firmware, and what the guest boots.
    ///
    /// - Throws: where the guest's files can't be found.
    package func jail(_ vm: VMConfiguration) throws -> JailPlan {
        var plan = JailPlan(.qemu, user: vm.user)
        let program = try resolved(executable)
        // An installation elsewhere has its own directories beside the program's.
        let prefix = program.split(separator: "/").dropLast(2).map { "/" + $0 }.joined()
        let own =
            prefix.isEmpty || prefix == "/usr" ? [] : ["\(prefix)/lib", "\(prefix)/lib64", "\(prefix)/share/qemu"]
        let files = [vm.kernel, vm.bootInitramfs, vm.rootImage].compactMap { $0 }
        var paths = (Self.places + own).filter { access($0, F_OK) == 0 } + [program] + files
        if accelerator == .kvm { paths.append("/dev/kvm") }
        plan.root = .only(paths)
        return plan
    }

    /// The words by which `martlet-device` enters the jail and becomes QEMU.
    func jailedArguments(_ vm: VMConfiguration) throws -> [String] {
        let plan = try jail(vm)
        var words = ["qemu", "--uid", "\(plan.user)"]
        if case .only(let paths) = plan.root { for path in paths { words += ["--file", path] } }
        return words + ["--", try resolved(executable)] + arguments(vm)
    }

    private func resolved(_ path: String) throws -> String {
        guard let name = realpath(path, nil) else { throw SystemError.last("realpath", path) }
        defer { free(name) }
        return String(cString: name)
    }
}
