import Testing

@testable import Bench

@Suite struct StartTests {
    @Test func phasesComeOutOfALog() {
        var times = PhaseTimes()
        for line in [
            #"{"at":"100","level":"debug","msg":"phase","phase":"server","time":"2026-01-01T00:00:00Z"}"#,
            #"{"at":"250","level":"debug","msg":"phase","phase":"first instruction","pod":"a"}"#,
            #"{"level":"debug","msg":"guest: phase agent ready 5"}"#, #"{"at":"900","msg":"phase","phase":"server"}"#,
            #"{"at":"x","msg":"phase","phase":"agent ready"}"#, #"{"msg":"phase"}"#, "phase", "",
        ] { times.record(line: line) }
        #expect(times.time(of: "server") == 100)
        #expect(times.time(of: "first instruction") == 250)
        #expect(times.time(of: "agent ready") == nil)
    }

    @Test func guestMemoryIsNotAProcesssOwn() {
        let smaps = """
            55d0c0000000-55d0c0021000 r-xp 00000000 fe:00 1234 /usr/bin/martlet-vmm
            Rss:                 120 kB
            Pss:                  60 kB
            Private_Clean:        20 kB
            Private_Dirty:         4 kB
            7f0000000000-7f0020000000 rw-s 00000000 00:2d 2 /martlet-pod (deleted)
            Rss:               65536 kB
            Pss:               32768 kB
            Private_Dirty:     65536 kB
            7f0100000000-7f0100200000 rw-s 00000000 00:01 7 /memfd:registers (deleted)
            Rss:                   8 kB
            Private_Dirty:         8 kB
            7f0200000000-7f0200021000 rw-p 00000000 00:00 0
            Rss:                  16 kB
            Pss:                  16 kB
            Private_Dirty:        16 kB
            """
        let memory = ProcessMemory(process: "vmm", smaps: smaps)
        #expect(
            memory
                == ProcessMemory(
                    process: "vmm", privateKiB: 40, proportionalKiB: 76, guestKiB: 65544, guestOwnKiB: 65544))
        #expect([memory, memory].total.privateKiB == 80)
        // Two processes that map one guest's memory.
        #expect([memory, memory].total.guestKiB == 65544)
    }

    /// The pages of a template that the guest has written to are its own; the others are all pods'.
    @Test func aTemplatesMemoryIsShared() {
        let smaps = """
            7f0000000000-7f0020000000 rw-p 00000000 00:2d 2 /var/lib/martlet/templates/1cpu-512mib-01/memory
            Rss:               20480 kB
            Pss:               12288 kB
            Private_Clean:      1024 kB
            Private_Dirty:      8192 kB
            Anonymous:          8192 kB
            """
        #expect(
            ProcessMemory(process: "vmm", smaps: smaps)
                == ProcessMemory(process: "vmm", guestKiB: 20480, guestOwnKiB: 8192))
    }

    @Test func theRatioIsOfMedians() throws {
        let run = try #require(Samples([10, 12, 11]))
        let comparison = Comparison(
            "start", unit: "ms", better: .lower,
            sides: try [[30, 10, 20], [50, 40, 30]].map { try #require(Samples($0)) })
        let report = StartReport(
            command: "bench", facts: [.init("host", "<here>")], run: run,
            phases: [.init(name: "server", samples: run)], memory: [],
            touched: .init(asConfigured: 40, inSmallPages: 30.5), start: comparison, startOfTinyGuest: nil)
        #expect(report.ratio == 0.5)
        #expect(report.ratioOfTinyGuest == nil)
        let json = try report.json()
        #expect(json.contains("\"ratio\" : 0.5"))
        #expect(!json.contains("ratio_vmm"))
        #expect(
            json.contains("\"guest_touched_mib\" : 40") && json.contains("\"guest_touched_small_pages_mib\" : 30.5"))
        #expect(report.table().contains("0.500"))
        let page = report.page()
        #expect(page.contains("<svg") && page.contains("&lt;here&gt;") && !page.contains("<here>"))
    }

    @Test func theTinyGuestIsAnELFFileWithANote() {
        let image = TinyGuest.image
        #expect(Array(image.prefix(5)) == [0x7f, 0x45, 0x4c, 0x46, 2])
        // Two program headers: the code, and a note that names the same entry as the file's header does.
        #expect(image[56] == 2)
        #expect(Array(image[24..<32]) == [0, 0, 0x10, 0, 0, 0, 0, 0])
        let note = 64 + 2 * 56
        #expect(Array(image[note..<note + 16]) == [4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0, 0x58, 0x65, 0x6e, 0])
        #expect(Array(image[(note + 16)..<(note + 24)]) == [0, 0, 0x10, 0, 0, 0, 0, 0])
        #expect(image[(note + 24)...].starts(with: [0x66, 0xba, 0xf8, 0x03]))
    }
}
