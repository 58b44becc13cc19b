#if Libvirt
    import Glibc
    import LinuxSystem

    /// The cgroups that libvirt has made for a domain, and that its QEMU has left for its pod's. libvirt removes them, but one that was
    /// restarted meanwhile no longer knows of them.
    struct LibvirtCgroups: Sendable {
        private let directories: [String]

        /// Moves a domain's QEMU, with its threads.
        ///
        /// - Parameters:
        ///   - pid: QEMU's process; 0: it can't be seen.
        ///   - name: the domain's, whose beginning the names of libvirt's cgroups have.
        ///   - cgroups: the pod's directories; none: it stays where it is.
        init(leaving pid: Int32, _ name: String, for cgroups: [String]) throws {
            if cgroups.isEmpty {
                directories = []
                return
            }
            guard pid > 0 else {
                throw HypervisorError("libvirt's QEMU is in another pid namespace: it can't join the pod's cgroup")
            }
            let mounts = try MountEntry.all().filter { ["cgroup", "cgroup2"].contains($0.type) }
            let paths = try Self.paths(in: readText("/proc/\(pid)/cgroup"), of: name)
            directories = mounts.flatMap { mount in paths.map { "\(mount.mountPoint)\($0)" } }
            for directory in cgroups { try writeText("\(pid)", to: "\(directory)/cgroup.procs") }
        }

        /// libvirt shortens a domain's name to 20 bytes there.
        private static let nameLength = 16

        /// `/machine/qemu-1-martlet-ID.libvirt-qemu` of `4:cpu:/machine/qemu-1-martlet-ID.libvirt-qemu/emulator`.
        private static func paths(in text: String, of name: String) -> Set<String> {
            Set(
                text.split(separator: "\n").compactMap { line in
                    let parts = line.split(separator: "/").dropFirst()
                    return parts.firstIndex { $0.contains(name.prefix(nameLength)) }.map { last in
                        parts.prefix(through: last).map { "/\($0)" }.joined()
                    }
                })
        }

        /// Removes what is left of them. QEMU has ended.
        func remove() { for directory in directories { Self.remove(directory) } }

        /// Only directories go, and none that has processes.
        private static func remove(_ directory: String) {
            for name in (try? directoryNames(directory)) ?? [] {
                let path = "\(directory)/\(name)"
                if rmdir(path) != 0, errno == EBUSY || errno == ENOTEMPTY { remove(path) }
            }
            rmdir(directory)
        }
    }
#endif
