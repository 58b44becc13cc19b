import OCISpec
import Testing

@testable import Sandbox

@Suite struct CgroupMountsTests {
    private static let whole = "/sys/fs/cgroup"

    private func bind(_ path: String, _ options: String...) -> Mount {
        Mount(destination: path, type: "bind", source: path, options: ["rbind"] + options)
    }

    private func replaced(_ mounts: [Mount]) -> [Mount] {
        var mounts = mounts
        mounts.replaceHostCgroups { $0.hasPrefix(Self.whole) }
        return mounts
    }

    private func own(_ access: String) -> Mount {
        Mount(
            destination: Self.whole, type: "cgroup", source: "cgroup", options: ["nosuid", "noexec", "nodev", access])
    }

    /// podman for systemd, with version 2 and without a cgroup namespace; docker with `-v`.
    @Test func aBindOfTheHostsBecomesTheGuests() {
        #expect(replaced([bind(Self.whole)]) == [own("rw")])
        #expect(replaced([bind(Self.whole, "rw", "ro")]) == [own("ro")])
    }

    /// podman for systemd, with version 1.
    @Test func aPartBecomesTheWhole() {
        let after = bind("/run")
        #expect(replaced([own("ro"), after, bind("\(Self.whole)/systemd")]) == [own("rw"), after])
        #expect(replaced([after, bind("\(Self.whole)/systemd", "ro")]) == [after, own("ro")])
    }

    @Test func othersStay() {
        let mounts = [
            own("ro"), Mount(destination: "/host", type: "bind", source: Self.whole, options: ["bind"]),
            Mount(destination: "\(Self.whole)/x", type: "bind", source: "/data", options: ["bind"]),
        ]
        #expect(replaced(mounts) == mounts)
    }
}
