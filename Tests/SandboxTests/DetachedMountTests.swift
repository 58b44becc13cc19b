import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import Sandbox

/// The mounts of a tree of the host as they are handed to the file device.
@Suite(.enabled(if: geteuid() == 0, "needs root: mounts")) struct DetachedMountTests {
    /// A directory with a tmpfs in it, a read-only bind mount of that, a mount hidden by another, and a bound file.
    private func withTree(_ body: (String) throws -> Void) throws {
        var template = Array("/tmp/martlet-tree.XXXXXX".utf8CString)
        let directory = String(cString: try #require(mkdtemp(&template)))
        defer {
            _ = try? MountEntry.detachAll(below: directory)
            for name in ["tmpfs", "fixed", "hidden"] { rmdir("\(directory)/\(name)") }
            for name in ["file", "bound"] { unlink("\(directory)/\(name)") }
            rmdir(directory)
        }
        for name in ["tmpfs", "fixed", "hidden"] { mkdir("\(directory)/\(name)", 0o755) }
        for name in ["file", "bound"] { close(creat("\(directory)/\(name)", 0o644)) }
        func make(_ source: String, _ target: String, _ type: String? = nil, _ flags: UInt = 0) throws {
            try check("mount", target, mount(source, "\(directory)/\(target)", type, flags, nil))
        }
        try make("none", "tmpfs", "tmpfs")
        mkdir("\(directory)/tmpfs/inner", 0o755)
        try make("\(directory)/tmpfs", "fixed", nil, MountFlag.bind)
        try make("none", "fixed", nil, MountFlag.bind | MountFlag.remount | MountFlag.readOnly)
        for _ in 0..<2 { try make("none", "hidden", "tmpfs") }
        try make("\(directory)/file", "bound", nil, MountFlag.bind)
        try body(directory)
    }

    private func isReadOnly(_ mount: DetachedMount) -> Bool {
        var status = statvfs()
        return fstatvfs(mount.tree.raw, &status) == 0 && status.f_flag & 1 != 0  // ST_RDONLY
    }

    private func entries(_ mount: DetachedMount) -> Int {
        (["tmpfs/inner", "inner"] as [String]).filter { faccessat(mount.tree.raw, $0, F_OK, 0) == 0 }.count
    }

    /// The owners of a directory as a mount of it shows them.
    private func owners(_ mount: DetachedMount) -> [UInt32] {
        var status = stat()
        return fstat(mount.tree.raw, &status) == 0 ? [status.st_uid, status.st_gid] : []
    }

    @Test func idsAreMappedInTheMountAlone() throws {
        try withTree { directory in
            let path = "\(directory)/tmpfs/inner"
            #expect(chown(path, 7, 9) == 0)
            let map = MappedIDs(
                users: [.init(first: 0, becomes: 1000, count: 5), .init(first: 5, becomes: 2000, count: 5)],
                groups: [.init(first: 9, becomes: 3, count: 1)])
            let ids = SandboxPlan.ShareIDs(map: map, mounts: .top)
            let mapped = try DetachedMount.clone(.path(path), all: false, readOnly: .none, ids: ids)
            let plain = try DetachedMount.clone(.path(path), all: false, readOnly: .none)
            #expect(owners(mapped[0]) == [2002, 3] && owners(plain[0]) == [7, 9])
            // Another inode in the guest; the same map names the same.
            #expect(mapped[0].fileSystem != plain[0].fileSystem && mapped[0].file == plain[0].file)
            let again = try DetachedMount.clone(.path(path), all: false, readOnly: .none, ids: ids)
            #expect(again[0].fileSystem == mapped[0].fileSystem)
            // Of a tree the first mount, or all of them.
            for (mounts, expected) in [(SandboxPlan.Share.Extent.top, [0, 0] as [UInt32]), (.all, [1000, 65534])] {
                let ids = SandboxPlan.ShareIDs(map: map, mounts: mounts)
                let tree = try DetachedMount.clone(.path(directory), all: true, readOnly: .none, ids: ids)
                #expect(tree.first.map(owners) == [1000, 65534])
                #expect(tree.first { $0.path == "hidden" }.map(owners) == expected)
            }
            let none = SandboxPlan.ShareIDs(map: MappedIDs(users: [], groups: []), mounts: .top)
            #expect(throws: SystemError.self) {
                try DetachedMount.clone(.path(path), all: false, readOnly: .none, ids: none)
            }
        }
    }

    @Test func eachMountIsAShareOfItsOwn() throws {
        try withTree { directory in
            let all = try DetachedMount.clone(.path(directory), all: true, readOnly: .none)
            #expect(all.first?.path == "" && Set(all.dropFirst().map(\.path)) == ["tmpfs", "fixed", "hidden", "bound"])
            #expect(all.count == 5, "of two mounts at one place the one that shows")
            // What lies below a mount point is not in the clone, which is of one mount.
            #expect(all.map(entries) == all.map { ["tmpfs", "fixed"].contains($0.path) ? 1 : 0 })
            let byPath = Dictionary(uniqueKeysWithValues: all.map { ($0.path, $0) })
            // The same directory by two mounts, and the same file: one name.
            #expect(byPath["tmpfs"]?.file == byPath["fixed"]?.file)
            #expect(byPath["tmpfs"]?.fileSystem == byPath["fixed"]?.fileSystem)
            #expect(byPath["hidden"]?.fileSystem != byPath["tmpfs"]?.fileSystem)
            let file = try DetachedMount.clone(.path("\(directory)/file"), all: false, readOnly: .none)
            #expect(file.map(\.file) == [byPath["bound"]?.file] && file[0].fileSystem == all[0].fileSystem)
            // Where it is in its file system, whichever mount leads there.
            #expect(file[0].root == byPath["bound"]?.root && file[0].root == "\(all[0].root ?? "")/file")
            let inner = try DetachedMount.clone(.path("\(directory)/fixed/inner"), all: true, readOnly: .none)
            #expect(inner.map(\.root) == ["/inner"] && inner[0].isReadOnly)
        }
    }

    @Test func bindLeavesOutWhatIsMountedBelow() throws {
        try withTree { directory in
            let top = try DetachedMount.clone(.path(directory), all: false, readOnly: .none)
            #expect(top.map(\.path) == [""] && top.map(entries) == [0])
        }
    }

    @Test func readOnlyHoldsForTheFirstMountOrForAll() throws {
        try withTree { directory in
            for (extent, writable) in [
                (SandboxPlan.Share.Extent.none, ["", "bound", "hidden", "tmpfs"]),
                (.top, ["bound", "hidden", "tmpfs"]),
                (.all, []),
            ] {
                let all = try DetachedMount.clone(.path(directory), all: true, readOnly: extent)
                #expect(all.filter { !$0.isReadOnly }.map(\.path).sorted() == writable, "\(extent)")
                #expect(all.map(isReadOnly) == all.map(\.isReadOnly), "\(extent)")
            }
        }
    }
}
