import AgentContract
import CLinux
import Glibc
import Hypervisor
import LinuxSystem
public import VMMControl

/// What a template is of: a machine may start from it only where all of this is the same.
public struct TemplateShape: Sendable, Equatable, Codable {
    /// A file, as far as it can be known without reading it.
    public struct File: Sendable, Equatable, Codable {
        public var path: String
        public var bytes: Int64
        /// Of its last change, nanoseconds since the epoch.
        public var modified: Int64

        init(_ path: String) throws(SystemError) {
            var facts = stat()
            try check("stat", path, stat(path, &facts))
            self.path = path
            bytes = Int64(facts.st_size)
            modified = Int64(facts.st_mtim.tv_sec) * 1_000_000_000 + Int64(facts.st_mtim.tv_nsec)
        }
    }

    /// Martlet's.
    public var version: String
    public var kernel: File
    public var initramfs: File?
    public var rootImage: File?
    public var kernelArguments: [String]
    public var vcpus: Int
    public var memoryMiB: Int
    /// What the machine can get while it runs.
    public var maximumVCPUs: Int
    public var maximumMemoryMiB: Int
    public var cpu: GuestCPU
    public var reportsFreePages: Bool
    /// The host's CPU and kernel.
    public var host: String
    /// Who shares the template; empty: all pods without a tenant.
    public var tenant: String

    /// The shape of a machine; nil where a machine like it can't start from a template.
    ///
    /// - Throws: `SystemError` where the kernel, the initramfs or the root image is not there.
    init?(_ machine: VMConfiguration, tenant: String) throws(SystemError) {
        guard Self.objection(to: machine) == nil else { return nil }
        version = martletVersion
        kernel = try File(machine.kernel)
        if let path = machine.bootInitramfs { initramfs = try File(path) }
        if let path = machine.rootImage { rootImage = try File(path) }
        kernelArguments = machine.kernelArguments
        vcpus = machine.vcpus
        memoryMiB = machine.memoryMiB
        maximumVCPUs = machine.maximumVCPUs
        maximumMemoryMiB = machine.maximumMemoryMiB
        cpu = machine.cpu
        reportsFreePages = machine.reportsFreePages
        host = Self.thisHost()
        self.tenant = tenant
    }

    /// The shape of the machine of a plan, which is to be saved or restored.
    ///
    /// - Parameter purpose: for messages: `a template`.
    /// - Throws: `SandboxError.unsupported` where that can't be done with it.
    static func required(for purpose: String, _ plan: SandboxPlan, tenant: String) throws -> TemplateShape {
        guard plan.driver.isBuiltIn else {
            throw SandboxError.unsupported(
                "\(purpose) with \(plan.driver) (the built-in VMM, hypervisor = \"kvm\", can)")
        }
        guard let shape = try TemplateShape(plan.machine, tenant: tenant) else {
            throw SandboxError.unsupported("\(purpose) of this machine (\(objection(to: plan.machine) ?? ""))")
        }
        return shape
    }

    /// Why a machine like this one can't start from a template; nil: it can.
    static func objection(to machine: VMConfiguration) -> String? {
        if machine.debugConsole { return "vm.debug_console is on" }
        if !machine.hasFiles { return "it has no file device" }
        return nil
    }

    /// Whether a machine of this shape can grow to one of another: all but the size is the same.
    func canGrow(to other: TemplateShape) -> Bool {
        var same = other
        (same.vcpus, same.memoryMiB) = (vcpus, memoryMiB)
        return same == self && (vcpus...maximumVCPUs).contains(other.vcpus)
            && (memoryMiB...memoryMiB + VMConfiguration.hotplugMiB(memoryMiB, of: maximumMemoryMiB)).contains(
                other.memoryMiB)
    }

    /// The name of the template's directory, of numbers that people know it by and a hash of the rest.
    var name: String {
        let rest =
            "\(version)\n\(kernel)\n\(String(describing: initramfs))\n\(String(describing: rootImage))\n\(kernelArguments)\n"
            + "\(maximumVCPUs)\n\(maximumMemoryMiB)\n\(cpu)\n\(reportsFreePages)\n\(host)\n\(tenant)"
        // It tells apart what is listed; what counts is the whole shape, which is compared.
        return "\(vcpus)cpu-\(memoryMiB)mib-\(textHash(rest))"
    }

    /// The CPU's vendor, signature and name, and the kernel's release: what KVM gives a guest depends on both.
    static func thisHost() -> String {
        func leaf(_ number: UInt32) -> [UInt32] {
            var registers: [UInt32] = [0, 0, 0, 0]
            martlet_cpuid(number, 0, &registers)
            return registers
        }
        func text(_ registers: [UInt32]) -> String {
            let bytes = registers.flatMap { value in withUnsafeBytes(of: value.littleEndian) { Array($0) } }
            return String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
        let first = leaf(0)
        let vendor = text([first[1], first[3], first[2]])
        let name = text((0x8000_0002...0x8000_0004).flatMap(leaf)).split(separator: " ").joined(separator: " ")
        var system = utsname()
        uname(&system)
        let release = withUnsafeBytes(of: system.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        return "\(vendor) \(String(leaf(1)[0], radix: 16)) \(name), Linux \(release)"
    }
}
