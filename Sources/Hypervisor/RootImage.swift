import Glibc

/// How a machine boots from its root image, where it has one.
extension VMConfiguration {
    /// Has the kernel mount the image, whose pages stay where the machine maps them, and start the agent from it.
    private static let rootArguments = [
        "root=/dev/pmem0", "rootwait", "ro", "rootfstype=erofs", "rootflags=dax=always", "init=/init",
    ]

    /// The kernel's command line, with what it needs for the root image.
    var bootArguments: [String] { kernelArguments + (rootImage == nil ? [] : Self.rootArguments) }

    /// The initramfs that is loaded: none beside a root image.
    package var bootInitramfs: String? { rootImage == nil ? initramfs : nil }
}

extension QEMUDriver {
    /// What the addresses above memory have room for, as the built-in VMM's: MiB.
    private static let rootImageLimitMiB = 1024

    /// Addresses above memory for the root image and for memory that is plugged, which begins at a 1 GiB page, MiB.
    static func addressesMiB(_ vm: VMConfiguration) -> Int {
        let (image, hotplug) = (vm.rootImage == nil ? 0 : rootImageLimitMiB, vm.hotplugMiB)
        return image + (hotplug == 0 ? 0 : hotplug + 2048)
    }

    /// The machine's memory.
    static func memoryArguments(_ vm: VMConfiguration) -> [String] {
        let more = addressesMiB(vm)
        return ["-m", "\(vm.memoryMiB)M" + (more == 0 ? "" : ",maxmem=\(vm.memoryMiB + more)M")]
    }

    /// The root image as persistent memory that the guest can only read.
    static func rootImageArguments(_ vm: VMConfiguration) -> [String] {
        guard let path = vm.rootImage else { return [] }
        var facts = stat()
        // Where there is no such file, QEMU says so.
        let size = stat(path, &facts) == 0 ? facts.st_size : 0
        return [
            "-object", "memory-backend-file,id=root,mem-path=\(path),size=\(size),share=on,readonly=on",
            "-device", "virtio-pmem-pci,memdev=root",
        ]
    }
}
