import FoundationEssentials
import Logging
import Testing

@testable import Hypervisor

@Suite struct QEMUArgumentsTests {
    private func arguments(_ accelerator: QEMUDriver.Accelerator, vcpus: Int = 1) -> [String] {
        let driver = QEMUDriver(executable: "/usr/bin/qemu", accelerator: accelerator, logger: Logger(label: "test"))
        return driver.arguments(
            VMConfiguration(
                name: "pod", vcpus: vcpus, memoryMiB: 300, kernel: "/k", initramfs: "/i", kernelArguments: ["a", "b=c"])
        )
    }

    private func value(_ option: String, _ arguments: [String]) -> String? {
        arguments.firstIndex(of: option).map { arguments[$0 + 1] }
    }

    @Test func memoryIsSharedWithTheDevices() {
        let arguments = arguments(.tcg)
        // Without share=on the devices would be dead, and nothing would say so.
        #expect(value("-object", arguments) == "memory-backend-memfd,id=memory,size=300M,share=on")
        #expect(value("-machine", arguments)?.contains("memory-backend=memory") == true)
        #expect(value("-m", arguments) == "300M")
    }

    @Test func theBalloonReportsFreePagesUnlessItMayNot() {
        #expect(
            arguments(.tcg).contains("virtio-balloon-pci,id=balloon,deflate-on-oom=on,free-page-reporting=on"))
        var vm = VMConfiguration(
            name: "pod", vcpus: 1, memoryMiB: 300, kernel: "/k", initramfs: "/i", kernelArguments: [])
        vm.reportsFreePages = false
        let driver = QEMUDriver(executable: "/usr/bin/qemu", accelerator: .tcg, logger: Logger(label: "test"))
        #expect(
            driver.arguments(vm).contains("virtio-balloon-pci,id=balloon,deflate-on-oom=on,free-page-reporting=off"))
    }

    @Test func whatCommandsReturnIsReadAsFarAsItIsUsed() throws {
        func answer(_ text: String) throws -> QMP.Answer {
            try JSONDecoder().decode(QMP.Answer.self, from: Data(text.utf8))
        }
        #expect(try answer("{\"actual\": 536870912}").actual == 536_870_912)
        // Of a guest that tells some only; -1 stands for the others, as a number with and without a sign.
        let stats = """
            {"last-update": 7, "stats": {"stat-free-memory": 5, "stat-swap-in": 18446744073709551615, "stat-x": -1}}
            """
        #expect(try answer(stats).stats == ["stat-free-memory": 5])
        for other in ["{}", "[1, 2]", "\"text\"", "{\"actual\": \"much\", \"stats\": 3}"] {
            let read = try answer(other)
            #expect(read.actual == nil && read.stats.isEmpty, "\(other)")
        }
    }

    @Test func theGuestIsWhatTheConfigurationSays() {
        let arguments = arguments(.tcg, vcpus: 4)
        #expect(value("-kernel", arguments) == "/k")
        #expect(value("-initrd", arguments) == "/i")
        #expect(value("-append", arguments) == "a b=c")
        #expect(value("-smp", arguments) == "4")
        #expect(value("-accel", arguments) == "tcg,thread=multi")
        // A panic must end the machine, not reboot it.
        #expect(arguments.contains("-no-reboot"))
    }

    @Test func theRootImageTakesThePlaceOfTheInitramfs() {
        var vm = VMConfiguration(
            name: "pod", vcpus: 1, memoryMiB: 300, kernel: "/k", initramfs: "/i", kernelArguments: ["a"])
        vm.rootImage = "/none/r"
        let driver = QEMUDriver(executable: "/usr/bin/qemu", accelerator: .tcg, logger: Logger(label: "test"))
        let arguments = driver.arguments(vm)
        #expect(!arguments.contains("-initrd"))
        #expect(
            value("-append", arguments)
                == "a root=/dev/pmem0 rootwait ro rootfstype=erofs rootflags=dax=always init=/init")
        #expect(value("-m", arguments) == "300M,maxmem=1324M")
        // Read-only for QEMU too, whatever the guest makes it do.
        #expect(
            arguments.contains("memory-backend-file,id=root,mem-path=/none/r,size=0,share=on,readonly=on")
                && arguments.contains("virtio-pmem-pci,memdev=root"))
    }

    @Test func eachSocketHasItsNumber() {
        let vm = VMConfiguration(
            name: "pod", vcpus: 1, memoryMiB: 300, kernel: "/k", initramfs: nil, kernelArguments: [], hasFiles: false)
        let driver = QEMUDriver(executable: "/usr/bin/qemu", accelerator: .tcg, logger: Logger(label: "test"))
        #expect(
            driver.arguments(vm).filter { $0.hasPrefix("socket,") } == [
                "socket,id=monitor,fd=3", "socket,id=console,fd=4", "socket,id=vsock,fd=5",
            ])
        #expect(!driver.arguments(vm).contains { $0.contains("vhost-user-fs") })
    }

    @Test func aGuestSeesNoVirtualizationUnlessItMay() {
        #expect(QEMUDriver.Accelerator.kvm.cpuModel(.init()) == "host,-vmx,-svm")
        #expect(QEMUDriver.Accelerator.kvm.cpuModel(.init(nested: true)) == "host")
        #expect(QEMUDriver.Accelerator.tcg.cpuModel(.init(nested: true)) == "max,-erms,-fsrm")
    }

    @Test func aProfileHidesWhatIsAboveIt() {
        let level3 = QEMUDriver.Accelerator.kvm.cpuModel(.init(profile: .level3)).split(separator: ",")
        #expect(level3.contains("-avx512f") && level3.contains("-avx512vnni") && level3.contains("-sha-ni"))
        #expect(!level3.contains("-avx2") && !level3.contains("-aes") && !level3.contains("-avx-ifma"))
        #expect(QEMUDriver.Accelerator.kvm.cpuModel(.init(profile: .level2)).contains(",-avx2,"))
        let emulated = DriverChoice.qemu(accelerator: .tcg, executable: "/q", reason: "")
        let error = #expect(throws: HypervisorError.self) { try emulated.check(.level4) }
        #expect(error.map { "\($0)" } == "vm.cpu: x86-64-v4: guests can't have AVX-512 here")
        #expect(throws: Never.self) { try emulated.check(.level3) }
    }

    @Test func everythingOfTheHostComesAsADescriptor() {
        for accelerator in [QEMUDriver.Accelerator.kvm, .tcg] {
            let arguments = arguments(accelerator)
            let channels = arguments.filter { $0.hasPrefix("socket,") }
            #expect(
                channels == [
                    "socket,id=monitor,fd=3", "socket,id=console,fd=4", "socket,id=vsock,fd=5", "socket,id=files,fd=6",
                ])
            #expect(value("-cpu", arguments) == (accelerator == .kvm ? "host,-vmx,-svm" : "max,-erms,-fsrm,-vmx,-svm"))
            #expect(value("-sandbox", arguments)?.hasPrefix("on,") == true)
        }
    }
}
