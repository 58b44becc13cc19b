import Glibc
import LinuxSystem
import Testing

@testable import Machine

/// The tables as Intel's compiler reads them: into source, and back to the same bytes.
@Suite(
    .serialized, .timeLimit(.minutes(2)),
    .enabled(if: access("/usr/bin/iasl", X_OK) == 0, "needs iasl (Debian's acpica-tools)"))
struct CompilerTests {
    @Test func everythingIsReadWithoutAComplaint() throws {
        let directory = try Scratch()
        for (cpus, more, devices, serial) in [
            (1, 0, 0, false), (2, 0, 1, true), (7, 1, 19, false), (1, 31, 18, true), (257, 0, 3, false),
        ] {
            let tables = try FoundTables(
                .sample(cpus: cpus, maximum: cpus + more, devices: devices, serial: serial))
            for (name, table) in [("xsdt", tables.xsdt), ("facp", tables.fadt), ("apic", tables.madt)] {
                try directory.write(table, "\(name).dat")
                try compile(directory, ["-d", "\(name).dat"])
                try compile(directory, ["-p", "\(name)-again", "\(name).dsl"])
                // A data table says all of itself but the compiler that it was made by.
                let again = try directory.read("\(name)-again.aml")
                #expect(Self.unsigned(again) == Self.unsigned(table), "\(name)")
            }
            try directory.write(tables.dsdt, "dsdt.dat")
            try compile(directory, ["-d", "dsdt.dat"])
            // Without its optimization of names, which makes absolute paths relative.
            try compile(directory, ["-on", "-p", "dsdt-again", "dsdt.dsl"])
            let same = try directory.read("dsdt-again.aml").dropFirst(36) == tables.dsdt.dropFirst(36)
            #expect(same, "\(devices) devices")
        }
    }

    @Test func theSourceSaysWhatWasMeant() throws {
        let directory = try Scratch()
        try directory.write(try FoundTables(.sample(cpus: 1, maximum: 3, devices: 2, serial: true)).dsdt, "dsdt.dat")
        try compile(directory, ["-d", "dsdt.dat"])
        let source = String(decoding: try directory.read("dsdt.dsl"), as: UTF8.self)
        let words = source.split { $0 == " " || $0 == "\n" }.joined(separator: " ")
        for piece in [
            "Device (VR01) { Name (_HID, \"LNRO0005\")", "Name (_UID, One)", "Memory32Fixed (ReadWrite, 0xC0001000,",
            "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, ) { 0x00000006, }",
            "IO (Decode16, 0x03F8,", "EisaId (\"PNP0501\")", "EisaId (\"PNP0C0C\")",
            "Name (_CID, \"VM_Gen_Counter\")", "Name (ADDR, Package (0x02) { 0x23456780, One })",
            "OperationRegion (EVRG, SystemIO, 0x0604, One)",
            "Method (_EVT, 1, NotSerialized)", "Local0 = EVNT",
            "If ((Local0 & One)) { Notify (\\_SB.PWRB, 0x80)", "If ((Local0 & 0x02)) { Notify (\\_SB.VGEN, 0x80)",
            "Name (\\_S5, Package (0x04)",
            "OperationRegion (CPRG, SystemIO, 0x0680, 0x03)", "R000, 8, R001, 8, R002, 8",
            "Device (C001) { Name (_HID, \"ACPI0007\" /* Processor Device */)", "Name (_UID, One)",
            "If ((R001 & One)) { Return (0x0F) } Return (Zero)", "Method (_EJ0, 1, NotSerialized)",
            "R002 = 0x08",
            "If ((\\_SB.R002 & 0x02)) { \\_SB.R002 = 0x02 Notify (\\_SB.C002, One)",
            "If ((\\_SB.R002 & 0x04)) { \\_SB.R002 = 0x04 Notify (\\_SB.C002, 0x03)",
        ] {
            #expect(words.contains(piece), "\(piece) is not in:\n\(source)")
        }
    }

    /// Without the checksum and who made the table, which the compiler puts its own in.
    private static func unsigned(_ table: [UInt8]) -> [UInt8] {
        var table = table
        table.replaceSubrange(28..<36, with: [UInt8](repeating: 0, count: 8))
        table[9] = 0
        return table
    }

    /// Runs the compiler; any error, warning or remark of its is a failure.
    private func compile(_ directory: Scratch, _ arguments: [String]) throws {
        let output = try OwnedDescriptor.open(directory.path + "/log", O_RDWR | O_CREAT | O_TRUNC, mode: 0o600)
        let words = arguments.map { $0.hasPrefix("-") ? $0 : directory.path + "/" + $0 }
        let process = try ChildProcess(
            "iasl",
            .init(
                executable: "/usr/bin/iasl", arguments: words, descriptors: [-1, output.raw, output.raw],
                diesWithParent: true))
        let end = process.waitForEnd(timeout: .seconds(30))
        let log = String(decoding: try directory.read("log"), as: UTF8.self)
        let lines = log.split(separator: "\n")
        let complaints = lines.filter {
            $0.contains("Error") || $0.contains("Warning") || $0.contains("Remark") || $0.contains("ACPI BIOS")
        }
        // The summary line counts what there was none of.
        let real = complaints.filter { !$0.contains("Compilation successful. 0 Errors, 0 Warnings, 0 Remarks") }
        #expect(end == .exited(0) && real.isEmpty, "iasl \(arguments):\n\(log)")
    }

    /// A directory for the compiler's files, removed with them.
    private final class Scratch {
        let path: String

        init() throws {
            var template = Array("/tmp/martlet-acpi.XXXXXX".utf8CString)
            guard mkdtemp(&template) != nil else { throw SystemError.last("mkdtemp", "/tmp") }
            path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }

        deinit {
            if let directory = opendir(path) {
                while let entry = readdir(directory) {
                    let name = withUnsafePointer(to: &entry.pointee.d_name) {
                        $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                    }
                    unlink(path + "/" + name)
                }
                closedir(directory)
            }
            rmdir(path)
        }

        func write(_ bytes: [UInt8], _ name: String) throws {
            let file = try OwnedDescriptor.open(path + "/" + name, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
            let count = Glibc.write(file.raw, bytes, bytes.count)
            try #require(count == bytes.count)
        }

        func read(_ name: String) throws -> [UInt8] {
            let file = try OwnedDescriptor.open(path + "/" + name, O_RDONLY)
            var bytes = [UInt8](repeating: 0, count: 1 << 20)
            let count = Glibc.read(file.raw, &bytes, bytes.count)
            try #require(count >= 0 && count < bytes.count)
            return Array(bytes.prefix(count))
        }
    }
}
