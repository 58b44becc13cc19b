import CLinux
import FuzzSupport
import Glibc
import LinuxSystem

@testable import OCISpec
@testable import Sandbox

/// config.json of a bundle: decoding, validation, what is not supported, and the plan of the container.
final class BundleTarget: FuzzTarget {
    private let directory: String
    private let file: OwnedDescriptor

    init() throws {
        var template = Array("/tmp/martlet-fuzz-XXXXXX".utf8CString)
        directory = template.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) } ?? ""
        }
        // It goes with this process.
        try check("unshare", directory, unshare(CLONE_NEWNS))
        try check("mount", "/", mount("", "/", "", MountFlag.recursive | MountFlag.isPrivate, nil))
        try check("mount", directory, mount("tmpfs", directory, "tmpfs", 0, "size=4m"))
        mkdir(directory + "/rootfs", 0o755)
        file = try OwnedDescriptor.open(directory + "/config.json", O_RDWR | O_CREAT, mode: 0o600)
    }

    func run(_ input: inout Input) throws {
        let choice = input.byte()
        let bytes = input.rest()
        if choice >= 128 {
            // A process of an exec, or limits of an update.
            if choice & 1 == 0 {
                _ = try JSON.decode(Process.self, from: bytes, file: "process").problems()
            } else {
                _ = try JSON.decode(Linux.Resources.self, from: bytes, file: "resources")
            }
            return
        }
        ftruncate(file.raw, 0)
        bytes.withUnsafeBytes { _ = pwrite(file.raw, $0.baseAddress, $0.count, 0) }
        let bundle = try Bundle(directory: directory)
        require(bundle.spec.problems().isEmpty, "a bundle with problems")
        // What was read is written and read again as the same.
        let again = try JSON.decode(Spec.self, from: JSON.encode(bundle.spec), file: "again")
        require(again == bundle.spec, "not the same again")
        _ = bundle.spec.unsupported(policy: .init())
        _ = try HostCgroupPath(bundle.spec.linux?.cgroupsPath ?? "")
        _ = try SandboxPlan.Container.planned(id: "fuzz", bundle: bundle, Configuration())
        _ = try Sizing(PodRequest(bundle.spec), bundle.spec, host: HostLimits(above: ""), Configuration())
    }
}
