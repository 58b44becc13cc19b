import AgentContract
import Glibc
import LinuxSystem
import Sandbox

/// A statically linked program of this host, for a machine that has no libraries.
struct StaticProgram {
    /// Where the machine has it.
    static let directory = GuestPath.tools

    /// Absolute.
    let path: String
    /// What it is called in the machine, beside its own name.
    let names: [String]

    /// What it runs as a shell.
    var shell: [String] { names.contains("sh") ? ["sh"] : [path.split(separator: "/").last.map(String.init) ?? path] }

    /// - Parameter name: a path, or a name that is searched in `PATH`.
    /// - Throws: `SandboxError.invalid` where there is none, or one that needs libraries.
    init(_ name: String) throws {
        guard let found = name.contains("/") ? name : ExternalProgram.find(name), access(found, X_OK) == 0,
            let absolute = realpath(found, nil).map({ pointer in
                defer { free(pointer) }
                return String(cString: pointer)
            })
        else {
            throw SandboxError.invalid(
                "\(name): no such program. The machine has no shell of its own: install busybox-static, or name one by --tool"
            )
        }
        path = absolute
        guard try !Self.needsLibraries(path) else {
            throw SandboxError.invalid(
                "\(path): is not statically linked. The machine has no libraries: install busybox-static, or name one by --tool"
            )
        }
        let isBusybox = path.split(separator: "/").last?.hasPrefix("busybox") == true
        names = isBusybox ? try Self.applets(path) : []
    }

    /// Whether the kernel would start it by an interpreter (elf(5): a program header of type PT_INTERP).
    private static func needsLibraries(_ path: String) throws -> Bool {
        let file = try OwnedDescriptor.open(path, O_RDONLY)
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = try bytes.withUnsafeMutableBytes { try readAll(into: $0, from: file.raw, at: 0, path) }
        // The magic number, and the class of 64 bits.
        guard count >= 64, bytes.starts(with: [0x7f, 0x45, 0x4c, 0x46, 2]) else {
            throw SandboxError.invalid("\(path): not an executable of 64 bits (ELF)")
        }
        return bytes.withUnsafeBytes { bytes in
            let table = Int(clamping: bytes.loadUnaligned(fromByteOffset: 32, as: UInt64.self))
            let size = Int(bytes.loadUnaligned(fromByteOffset: 54, as: UInt16.self))
            let number = Int(bytes.loadUnaligned(fromByteOffset: 56, as: UInt16.self))
            return (0..<number).contains { index in
                guard table <= count, table + index * size + 4 <= count else { return false }
                return bytes.loadUnaligned(fromByteOffset: table + index * size, as: UInt32.self) == 3
            }
        }
    }

    /// The names under which busybox is another program.
    private static func applets(_ path: String) throws -> [String] {
        let (child, output) = try ChildProcess.withPipe(
            "busybox",
            .init(
                executable: path, arguments: ["--list"], environment: [], descriptors: [-1, ChildProcess.pipe, -1],
                diesWithParent: true))
        let names = try readText(output.raw, path)
        guard child.waitForEnd(timeout: .seconds(10)) == .exited(0) else { return [] }
        return names.split(separator: "\n").map(String.init).filter { !$0.contains("/") && !$0.isEmpty }
    }
}
