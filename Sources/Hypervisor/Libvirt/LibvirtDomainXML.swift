/// What libvirt is told of a machine: the domain's XML.
///
/// Source: https://libvirt.org/formatdomain.html, https://libvirt.org/drvqemu.html (pass-through of QEMU's arguments).
struct LibvirtDomainXML {
    var vm: VMConfiguration
    var qemu: QEMUDriver
    /// Where the machine's QEMU connects to.
    var sockets: Sockets
    /// `+UID:+GID` of libvirt's QEMU, which runs as it anyway; nil: this libvirtd changes no users.
    var user: String?

    /// Absolute paths.
    struct Sockets {
        var console: String
        var vsock: String
        var files: String
    }

    /// What libvirt calls the pod's domain.
    static func name(of vm: VMConfiguration) -> String { "martlet-\(vm.name)" }

    /// The metadata element's namespace.
    static let namespace = "urn:martlet:pod"
    /// What libvirt calls a domain's first balloon.
    static let balloonID = "balloon0"

    var text: String {
        """
        <domain type='\(qemu.accelerator == .kvm ? "kvm" : "qemu")' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
        <name>\(Self.escaped(Self.name(of: vm)))</name>
        <title>Martlet pod \(Self.escaped(vm.name))</title>
        <metadata><martlet:pod xmlns:martlet='\(Self.namespace)' id='\(Self.escaped(vm.name))'/></metadata>
        \(memory)
        <vcpu current='\(vm.vcpus)'>\(maximumVCPUs)</vcpu>
        \(boot)
        <features><acpi/><apic/><vmport state='off'/></features>
        \(processor)
        <on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot><on_crash>destroy</on_crash>
        \(devices)
        \(seclabel)
        \(commandLine)
        </domain>
        """
    }

    private var maximumVCPUs: Int { max(vm.vcpus, vm.maximumVCPUs) }

    /// The guest's memory is a shared memfd, which the device processes map.
    private var memory: String {
        let room = QEMUDriver.addressesMiB(vm)
        return "<memory unit='MiB'>\(vm.memoryMiB)</memory>"
            + (room == 0 ? "" : "<maxMemory slots='1' unit='MiB'>\(vm.memoryMiB + room)</maxMemory>")
            + "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
    }

    private var boot: String {
        "<os><type arch='x86_64' machine='q35'>hvm</type><kernel>\(Self.escaped(vm.kernel))</kernel>"
            + (vm.bootInitramfs.map { "<initrd>\(Self.escaped($0))</initrd>" } ?? "")
            + "<cmdline>\(Self.escaped(vm.bootArguments.joined(separator: " ")))</cmdline></os>"
    }

    /// libvirt has room for more memory only where the machine has a NUMA node, which has all vCPUs then.
    private var processor: String {
        let mode = qemu.accelerator == .kvm ? "host-passthrough" : "maximum"
        let hidden = qemu.accelerator.hiddenFeatures(vm.cpu)
        let cell = "<cell id='0' cpus='0-\(maximumVCPUs - 1)' memory='\(vm.memoryMiB)' unit='MiB'/>"
        return "<cpu mode='\(mode)' check='none'>"
            + hidden.map { "<feature policy='disable' name='\($0)'/>" }.joined()
            + (QEMUDriver.addressesMiB(vm) == 0 ? "" : "<numa>\(cell)</numa>") + "</cpu>"
    }

    /// On the root bus: the guest has no bridge to look behind. QEMU numbers those without addresses from the first slot on.
    private var devices: String {
        let reporting = vm.reportsFreePages ? "on" : "off"
        return """
            <devices>
            <emulator>\(Self.escaped(qemu.executable))</emulator>
            <controller type='usb' model='none'/>
            <controller type='virtio-serial' index='0'>\(Self.address(slot: 27))</controller>
            <console type='pty'><target type='virtio' port='0'/></console>
            <memballoon model='virtio' autodeflate='on' freePageReporting='\(reporting)'>\(Self.address(slot: 24))</memballoon>
            <rng model='virtio'><backend model='random'>/dev/urandom</backend>\(Self.address(slot: 25))</rng>
            \(files)
            </devices>
            """
    }

    private var files: String {
        if !vm.hasFiles { return "" }
        return "<filesystem type='mount'><driver type='virtiofs' queue='512'/>"
            + "<source socket='\(Self.escaped(sockets.files))'/><target dir='martlet'/>\(Self.address(slot: 26))</filesystem>"
    }

    private static func address(slot: Int) -> String {
        "<address type='pci' domain='0' bus='0' slot='\(slot)' function='0'/>"
    }

    /// libvirt would make its user the owner of the kernel and the initramfs, which all pods have.
    private var seclabel: String {
        user.map { "<seclabel type='static' model='dac' relabel='no'><label>\(Self.escaped($0))</label></seclabel>" }
            ?? ""
    }

    /// What libvirt has no element for.
    private var commandLine: String {
        let words =
            ["-chardev", "socket,id=vsock,path=\(sockets.vsock)", "-device", "vhost-user-vsock-pci,chardev=vsock"]
            + ["-chardev", "socket,id=console,path=\(sockets.console)", "-serial", "chardev:console"]
            + QEMUMemory.arguments(vm) + QEMUDriver.rootImageArguments(vm) + QEMUDriver.slotArguments
        return "<qemu:commandline>" + words.map { "<qemu:arg value='\(Self.escaped($0))'/>" }.joined()
            + "</qemu:commandline>"
    }

    /// Text as XML has it, in elements and attributes.
    static func escaped(_ text: String) -> String {
        var escaped = ""
        for character in text {
            switch character {
            case "&": escaped += "&amp;"
            case "<": escaped += "&lt;"
            case ">": escaped += "&gt;"
            case "'": escaped += "&apos;"
            case "\"": escaped += "&quot;"
            default: escaped.append(character)
            }
        }
        return escaped
    }
}
