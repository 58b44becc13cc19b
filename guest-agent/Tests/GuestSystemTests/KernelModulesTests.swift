import Testing

@testable import GuestSystem

@Suite struct KernelModulesTests {
    @Test func parametersComeFromTheCommandLine() {
        let line = "console=hvc0 dummy.numdummies=0 quiet xt_nat.a=1 dummy.b=2\n"
        #expect(KernelModules.parameters(of: "/lib/martlet/modules/08-dummy.ko", line) == "numdummies=0 b=2")
        #expect(KernelModules.parameters(of: "/lib/modules/dummy.ko.xz", line) == "numdummies=0 b=2")
        #expect(KernelModules.parameters(of: "12-xt-nat.ko", line) == "a=1")
        #expect(KernelModules.parameters(of: "01-virtio.ko", line) == "")
    }
}
