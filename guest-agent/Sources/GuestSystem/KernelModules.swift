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
        let commandLine = (try? readText("/proc/cmdline")) ?? ""
        for name in order.split(separator: "\n") where !name.hasPrefix("#") {
            do {
                try load(name.hasPrefix("/") ? String(name) : directory + "/" + name, commandLine)
            } catch {
                Console.report("\(error)")
            }
        }
    }

    /// The parameters of a module on the kernel's command line, `name.parameter=value`: for modules in files as for those that
    /// are built in. The file may have a number before the name: `08-dummy.ko`.
    static func parameters(of path: String, _ commandLine: String) -> String {
        let file = path.split(separator: "/").last ?? ""
        let base = file.prefix { $0 != "." }
        let name = (base.first?.isNumber == true ? base.drop { $0 != "-" }.dropFirst() : base).replacing("-", with: "_")
        return commandLine.split { $0 == " " || $0 == "\n" }.filter { $0.hasPrefix("\(name).") }
            .map { String($0.dropFirst(name.count + 1)) }.joined(separator: " ")
    }

    private static func load(_ path: String, _ commandLine: String) throws(SystemError) {
        let file = try OwnedDescriptor.open(path, O_RDONLY)
        // MODULE_INIT_COMPRESSED_FILE: the kernel unpacks it.
        let flags: Int32 = path.hasSuffix(".ko") ? 0 : 4
        if martlet_agent_finit_module(file.raw, parameters(of: path, commandLine), flags) == 0 || Glibc.errno == EEXIST
        {
            return
        }
        throw SystemError.last("load module", path)
    }
}
