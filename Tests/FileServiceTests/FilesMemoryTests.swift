import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import FileService

extension FilesTests {
    /// What a guest may make the server remember.
    @Suite struct Memory {
        /// Files that the guest knows, open files and directories that it reads have one budget, and give it back.
        @Test func memoryIsBounded() throws {
            let scratch = ScratchDirectory()
            for index in 0..<2000 { scratch.write("file-with-a-longer-name-\(index)", "x") }
            var options = FileServer.Options()
            options.memoryLimit = 256 << 10
            let guest = try FuseGuest(options)
            try guest.start()
            try guest.share("data", scratch.path)
            let root = try guest.lookup(1, "data").nodeid
            let memory = guest.server.memory
            let before = memory.taken
            var known: [UInt64] = []
            var codes: Set<Int32> = []
            for index in 0..<2000 {
                do { known.append(try guest.lookup(root, "file-with-a-longer-name-\(index)").nodeid) } catch {
                    codes.insert(guest.error(.lookup, root, text("file-with-a-longer-name-\(index)")))
                }
            }
            #expect(codes == [ENFILE] && (300..<500).contains(known.count), "\(known.count) \(codes)")
            #expect(memory.taken <= 192 << 10)
            // Directories are still read, whatever the guest knows.
            #expect(try guest.list(root).count == 2002)
            var handles: [UInt64] = []
            var code: Int32 = 0
            for _ in 0..<1000 {
                do {
                    let out = value(try guest.send(.opendir, root, guest.openArguments(O_RDONLY)), fuse_open_out.self)
                    handles.append(out.fh)
                    var input = fuse_read_in()
                    (input.fh, input.size) = (out.fh, 4096)
                    _ = try guest.send(.readdir, root, wire(input))
                } catch {
                    code = guest.error(.opendir, root, guest.openArguments(O_RDONLY))
                    break
                }
                #expect(memory.taken <= options.memoryLimit)
            }
            #expect(code == ENOMEM && (20..<64).contains(handles.count), "\(handles.count) \(code)")
            for handle in handles {
                var input = fuse_release_in()
                input.fh = handle
                try guest.send(.releasedir, root, wire(input))
            }
            for node in known { guest.forget(node) }
            #expect(memory.taken == before)
            #expect(guest.error(.lookup, root, text("file-with-a-longer-name-1999")) == 0)
        }
    }
}
