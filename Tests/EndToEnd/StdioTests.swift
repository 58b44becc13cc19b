import Glibc
import LinuxSystem
import OCISpec
import Testing

extension Containers {
    @Suite struct StdioTests {
        private func hash(_ seed: Int, _ bytes: Int) throws -> String {
            try Command.shell("\(Program.path("pattern")) \(seed) \(bytes) | sha256sum")
        }

        @Test func aHundredMebibytesThroughCatAreTheSame() throws {
            try Scene.play { scene in
                let bytes = 100 << 20
                let feed = try HostPipe()
                let drain = try HostPipe()
                let container = try scene.start(
                    bundle: scene.bundle(args: ["/bin/cat"]), input: .descriptor(feed.read),
                    output: .descriptor(drain.write))
                let source = try Command(Program.path("pattern"), ["1", "\(bytes)"], output: .descriptor(feed.write))
                let sink = try Command("sha256sum", [], input: .descriptor(drain.read))
                // The other ends must be the children's alone, or no end of file would ever be seen.
                try feed.close()
                try drain.close()
                #expect(try source.finish(within: .seconds(180)).code == 0)
                let outcome = try container.finish()
                #expect(outcome.code == 0, "\(outcome.errorText)")
                #expect(try sink.finish().text == hash(1, bytes))
            }
        }

        /// The reader of stdout sleeps: nothing is lost, and stderr flows on meanwhile; both stay whole and apart.
        @Test func aSlowReaderStallsOnlyItself() throws {
            try Scene.play { scene in
                let bytes = 8 << 20
                let drain = try HostPipe()
                let bundle = try scene.bundle(
                    script: "pattern 5 \(bytes) & pattern 6 \(bytes) >&2; echo done >&2; wait; cat; echo eof >&2")
                try Program.install("pattern", in: bundle)
                let container = try scene.start(bundle: bundle, input: .pipe, output: .descriptor(drain.write))
                try container.errors?.wait(for: "done\n", within: .seconds(90))
                let output = try Collector(drain.read)
                try drain.close()
                container.input?.write("last words")
                container.input?.close()
                let outcome = try container.finish()
                #expect(outcome.code == 0)
                let written = try output.whole(within: .seconds(10))
                try scene.write("stdout", bytes: written.dropLast(10))
                try scene.write("stderr", bytes: outcome.errors.dropLast(9))
                #expect(String(decoding: written.suffix(10), as: UTF8.self) == "last words")
                #expect(String(decoding: outcome.errors.suffix(9), as: UTF8.self) == "done\neof\n")
                #expect(try Command.shell("sha256sum <\(scene.directory)/stdout") == hash(5, bytes))
                #expect(try Command.shell("sha256sum <\(scene.directory)/stderr") == hash(6, bytes))
            }
        }

        @Test func closingStdoutEndsTheWriterWithSIGPIPE() throws {
            try Scene.play { scene in
                let drain = try HostPipe()
                let bundle = try scene.bundle(script: "pattern 1 1000000000; echo \"status $?\" >&2")
                try Program.install("pattern", in: bundle)
                let container = try scene.start(bundle: bundle, output: .descriptor(drain.write))
                var some = [UInt8](repeating: 0, count: 100_000)
                #expect(read(drain.read.raw, &some, some.count) > 0)
                try drain.close()
                let outcome = try container.finish()
                #expect(outcome.errorText == "status \(128 + SIGPIPE)\n")
                #expect(outcome.code == 0)
            }
        }

        @Test func stdinThatIsClosedIsAnEndOfFile() throws {
            try Scene.play { scene in
                let outcome = try scene.run(bundle: scene.bundle(script: "cat; echo after; read x || echo end"))
                #expect(outcome.lines == ["after", "end"], "\(outcome.errorText)")
            }
        }
    }
}
