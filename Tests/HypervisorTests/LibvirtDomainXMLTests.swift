import Logging
import Testing

@testable import Hypervisor

@Suite struct LibvirtDomainXMLTests {
    private func xml(
        _ accelerator: QEMUDriver.Accelerator = .tcg, user: String? = "+7:+8",
        _ edit: (inout VMConfiguration) -> Void = { _ in }
    ) -> String {
        var vm = VMConfiguration(
            name: "pod", vcpus: 2, memoryMiB: 300, kernel: "/k", initramfs: "/i", kernelArguments: ["a", "b=\"<&>'\""])
        edit(&vm)
        return LibvirtDomainXML(
            vm: vm, qemu: QEMUDriver(executable: "/q", accelerator: accelerator, logger: Logger(label: "test")),
            sockets: .init(console: "/c", vsock: "/v", files: "/f"), user: user
        ).text
    }

    @Test func theDomainNamesThePod() {
        let xml = xml()
        #expect(xml.contains("<name>martlet-pod</name>") && xml.contains("<title>Martlet pod pod</title>"))
        #expect(xml.contains("<martlet:pod xmlns:martlet='urn:martlet:pod' id='pod'/>"))
    }

    @Test func whatAnybodyWritesStaysText() {
        #expect(xml().contains("<cmdline>a b=&quot;&lt;&amp;&gt;&apos;&quot;</cmdline>"))
    }

    @Test func theMemoryIsSharedWithTheDevices() {
        let plain = xml()
        #expect(plain.contains("<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"))
        #expect(!plain.contains("maxMemory") && !plain.contains("numa"))
        let growing = xml { $0.maximumMemoryMiB = 300 + 1024 }
        #expect(growing.contains("<maxMemory slots='1' unit='MiB'>\(300 + 1024 + 2048)</maxMemory>"))
        #expect(growing.contains("<cell id='0' cpus='0-1' memory='300' unit='MiB'/>"))
        #expect(growing.contains("<qemu:arg value='virtio-mem-pci,id=hotplug,"))
    }

    @Test func vCPUsThatComeLaterBelongToTheNode() {
        let xml = xml { ($0.maximumVCPUs, $0.maximumMemoryMiB) = (4, 1324) }
        #expect(xml.contains("<vcpu current='2'>4</vcpu>") && xml.contains("cpus='0-3'"))
    }

    @Test func libvirtMustNotChangeOwnersOfFiles() {
        #expect(xml().contains("<seclabel type='static' model='dac' relabel='no'><label>+7:+8</label></seclabel>"))
        #expect(!xml(user: nil).contains("seclabel"))
    }

    @Test func theProcessorIsTheOneOfTheQEMUDriver() {
        #expect(xml(.kvm).contains("<domain type='kvm'") && xml(.kvm).contains("mode='host-passthrough'"))
        let emulated = xml()
        #expect(emulated.contains("<domain type='qemu'") && emulated.contains("mode='maximum'"))
        for name in ["erms", "fsrm", "vmx", "svm"] {
            #expect(emulated.contains("<feature policy='disable' name='\(name)'/>"))
        }
        #expect(!xml { $0.cpu.nested = true }.contains("vmx"))
    }

    @Test func theRootImageTakesThePlaceOfTheInitramfs() {
        #expect(xml().contains("<initrd>/i</initrd>"))
        let xml = xml { $0.rootImage = "/none/r" }
        #expect(!xml.contains("initrd") && xml.contains("<qemu:arg value='virtio-pmem-pci,memdev=root'/>"))
    }

    @Test func aMachineWithoutFilesHasNoFilesystem() {
        #expect(xml().contains("<source socket='/f'/><target dir='martlet'/>"))
        #expect(!xml { $0.hasFiles = false }.contains("filesystem"))
    }
}
