import GuestSystem
import LinuxSystem
import Testing

@testable import ContainerPlan

@Suite struct MountOptionsTests {
    @Test func flagsAndDataAreToldApart() throws {
        let options = try MountOptions(["nosuid", "noexec", "nodev", "mode=755", "size=65536k", "sync"])
        #expect(options.mountFlags == 2 | 4 | 8 | 16)
        #expect(options.data == "mode=755,size=65536k")
        #expect(!options.isBind)
    }

    @Test func aLaterOptionWins() throws {
        let options = try MountOptions(["ro", "rw", "noatime", "relatime"])
        #expect(options.attributes.set == 0)
        // Read-only and the access times are set back, not left as the source has them.
        #expect(options.attributes.clear == 0x71)
        #expect(try MountOptions(["rw", "ro"]).mountFlags == 1)
    }

    @Test func accessTimesAreOneField() throws {
        let options = try MountOptions(["strictatime", "noatime", "nodiratime"])
        #expect(options.attributes.set == 0x10 | 0x80)
        #expect(options.attributes.clear == 0x70)
        #expect(options.mountFlags == 1024 | 2048)
    }

    @Test func bindsMayBeRecursive() throws {
        let plain = try MountOptions(["bind", "ro"])
        #expect(plain.isBind && !plain.isRecursive && plain.attributes.set == 1)
        let recursive = try MountOptions(["rbind", "rro", "rslave"])
        #expect(recursive.isBind && recursive.isRecursive)
        #expect(recursive.attributes.isEmpty && recursive.recursiveAttributes.set == 1)
        #expect(recursive.propagation == [MountFlag.slave | MountFlag.recursive])
    }

    /// Of every attribute there is a recursive form (runtime-spec, config.md, "Linux mount options").
    @Test(arguments: MountOptions.attributeOptions.keys.sorted()) func eachAttributeHasARecursiveForm(name: String)
        throws
    {
        let plain = try MountOptions([name])
        let recursive = try MountOptions(["r" + name])
        #expect(recursive.recursiveAttributes == plain.attributes && !plain.attributes.isEmpty)
        #expect(recursive.attributes.isEmpty && recursive.data.isEmpty && recursive.propagation.isEmpty)
        // The kernel takes a new mode of access times only when it clears the field.
        if recursive.recursiveAttributes.set & MountOptions.accessTimes != 0 {
            #expect(recursive.recursiveAttributes.clear & MountOptions.accessTimes == MountOptions.accessTimes)
        }
    }

    @Test(arguments: ["idmap", "ridmap"])
    func whatIsNotDoneIsRefusedByName(option: String) {
        let failure = #expect(throws: AgentFailure.self) { try MountOptions([option]) }
        #expect(failure?.kind == .unimplemented)
        #expect(failure?.message.contains(option) == true)
    }
}
