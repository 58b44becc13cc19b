import Glibc
import LinuxSystem

/// The file that a machine's memory is in: one of its own, or a template's.
struct GuestMemoryFile: Sendable {
    let file: SharedDescriptor
    /// Bytes, with those that the guest can get while it runs.
    let size: Int64
    /// Other pods have the file too: what the guest writes stays out of it.
    let isPrivate: Bool

    init(_ configuration: VMConfiguration) throws {
        size = Int64(configuration.memoryMiB) << 20 + Int64(configuration.hotplugBytes)
        isPrivate = configuration.template != nil
        if let template = configuration.template {
            file = SharedDescriptor(try OwnedDescriptor.open(template.memory, O_RDONLY))
            return
        }
        let name = "martlet-\(configuration.name)"
        file = SharedDescriptor(
            configuration.hugePages
                ? try OwnedDescriptor.hugeMemory(name, size: size) : try OwnedDescriptor.memory(name, size: size))
    }
}
