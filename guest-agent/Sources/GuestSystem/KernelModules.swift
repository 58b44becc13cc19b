import CAgent
import Glibc
import LinuxSystem

/// The modules of a kernel that was not built for Martlet: the initramfs brings them, and the order to load them in.
public enum KernelModules {
    public static let directory = "/lib/martlet/modules"

    /// Loads every file that `order` in the directory lists, one a line; does nothing where there is no such list.
    /// A module that can't be loaded is reported and passed over: which ones a guest needs depends on the machine.
    public static func loadAll(from directory: String = directory) {
        guard let order = try? readText(directory + "/order") else { return }
        for name in order.split(separator: "\n") where !name.hasPrefix("#") {
            do {
                try load(name.hasPrefix("/") ? String(name) : directory + "/" + name)
            } catch {
                Console.say("martlet-agent: \(error)")
            }
        }
    }

    private static func load(_ path: String) throws(SystemError) {
        let file = try OwnedDescriptor.open(path, O_RDONLY)
        // MODULE_INIT_COMPRESSED_FILE: the kernel unpacks it.
        let flags: Int32 = path.hasSuffix(".ko") ? 0 : 4
        if martlet_agent_finit_module(file.raw, "", flags) == 0 || Glibc.errno == EEXIST { return }
        throw SystemError.last("load module", path)
    }
}
