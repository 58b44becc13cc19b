import Bench
import FoundationEssentials
import Glibc
import LinuxSystem
import OCISpec

/// Makes the bundles of containers that run programs of the host, for `martlet bench isolation`.
struct IsolationApplicationBundles: Sendable {
    let work: BenchDirectory
    let applications: IsolationApplications

    /// The bundle of a runtime in which redis answers requests; nil: it is not installed.
    ///
    /// - Parameter side: the runtime's number.
    func redis(_ side: Int) throws -> String? {
        try applications.redisScript.map { try bundle("\(side)-redis", $0) { _ in } }
    }

    /// The bundle of a runtime in which PostgreSQL performs transactions, with an empty database of its own; nil: it is not installed.
    ///
    /// - Parameter side: the runtime's number.
    func postgres(_ side: Int) throws -> String? {
        guard let programs = applications.postgres, let script = applications.postgresScript else { return nil }
        return try bundle("\(side)-postgres", script, user: IsolationApplications.user) { rootfs in
            let files = "\(rootfs)\(IsolationApplications.database)"
            try makeDirectories(files, mode: 0o755)
            try check("chmod", files, chmod(files, 0o700))
            let user = IsolationApplications.user
            try check("chown", files, chown(files, user, user))
            // The user can't reach the directory by its own path: those above it belong to root alone.
            let initdb = """
                mount --bind "$1" /mnt
                exec setpriv --reuid=\(user) --regid=\(user) --clear-groups \
                    "$2/initdb" --pgdata=/mnt --username=postgres --auth=trust --locale=C --encoding=UTF8 --no-sync
                """
            try HostCommand.run(
                "unshare", "--mount", "--propagation=private", "sh", "-ec", initdb, "sh", files, programs,
                within: .seconds(120))
        }
    }

    /// A bundle that has the host's programs and libraries.
    private func bundle(
        _ name: String, _ script: String, user: UInt32 = 0, fill: (_ rootfs: String) throws -> Void
    ) throws -> String {
        try work.bundle(name, ["/bin/sh", "-c", script]) { spec in
            spec.ociVersion = "1.0.2"
            spec.root?.readonly = false
            spec.process?.user.uid = user
            spec.process?.user.gid = user
            for directory in Self.shared where !Self.isLink(directory) {
                let options = ["rbind", "ro"]
                spec.mounts.append(Mount(destination: directory, type: "bind", source: directory, options: options))
            }
        } fill: { rootfs in
            let files = FileManager.default
            for directory in Self.shared {
                let place = "\(rootfs)\(directory)"
                try? files.removeItem(atPath: place)
                if Self.isLink(directory) {
                    try files.copyItem(atPath: directory, toPath: place)
                } else {
                    try makeDirectories(place, mode: 0o755)
                }
            }
            for file in ["/etc/passwd", "/etc/group", "/etc/ld.so.cache"] where access(file, R_OK) == 0 {
                try files.copyItem(atPath: file, toPath: "\(rootfs)\(file)")
            }
            try check("chmod", "\(rootfs)/tmp", chmod("\(rootfs)/tmp", 0o1777))
            try fill(rootfs)
        }
    }

    /// Directories of programs and libraries, as far as the host has them. Most are links into `/usr`.
    private static let shared: [String] = ["/usr", "/bin", "/sbin", "/lib", "/lib64"].filter { access($0, F_OK) == 0 }

    private static func isLink(_ path: String) -> Bool {
        var facts = stat()
        return lstat(path, &facts) == 0 && facts.st_mode & S_IFMT == S_IFLNK
    }
}
