import Glibc
public import GuestKernel
import LinuxSystem

extension KernelImage {
    /// Reads the headers of the kernel at `path`, before a hypervisor is given it.
    ///
    /// - Throws: `HypervisorError` that says what is wrong with the file.
    public static func inspect(_ path: String) throws(HypervisorError) -> KernelImage {
        do {
            let file = try OwnedDescriptor.open(path, O_RDONLY)
            return try KernelImage(file: file.raw, name: path)
        } catch let error as KernelImageError {
            throw HypervisorError("\(error)")
        } catch {
            throw HypervisorError("guest kernel: \(error)")
        }
    }
}
