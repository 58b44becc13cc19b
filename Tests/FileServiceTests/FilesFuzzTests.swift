import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import FileService

extension FilesTests {
    @Suite struct Fuzz {
        /// xorshift64*: the same requests for the same seed.
        struct Random {
            var state: UInt64
            mutating func next() -> UInt64 {
                state ^= state >> 12
                state ^= state << 25
                state ^= state >> 27
                return state &* 0x2545_f491_4f6c_dd1d
            }
            mutating func below(_ n: Int) -> Int { n > 0 ? Int(next() % UInt64(n)) : 0 }
        }

        /// Well-formed requests with numbers of nodes and handles that exist, and then some bytes changed, cut off or
        /// added, in buffers cut anywhere. Nothing traps, nothing leaks, nothing outside the share is touched.
        @Test(arguments: [1, 2, 3] as [UInt64]) func mutatedRequests(seed: UInt64) throws {
            let before = openDescriptors()
            do {
                var options = FileServer.Options()
                options.descriptorLimit = 96
                options.maximumNodes = 2000
                let scene = try Hostile.Scene(in: "/dev/shm", options)
                let guest = scene.guest
                var random = Random(state: seed &* 0x9e37_79b9_7f4a_7c15 | 1)
                var nodes: [UInt64] = [1, scene.root, scene.file, scene.directory]
                var handles: [UInt64] = [try guest.open(scene.file, O_RDWR).fh]
                let deadline = ContinuousClock.now + .milliseconds(900)
                var served = 0
                var count = 0
                while count < 600 || ContinuousClock.now < deadline {
                    count += 1
                    let handle = handles[random.below(handles.count)]
                    let requests = Hostile().everyRequest(guest, handle: handle)
                    let (operation, arguments) = requests[random.below(requests.count)]
                    let node = nodes[random.below(nodes.count)]
                    guest.user = random.below(3) == 0 ? UInt32(random.below(2000)) : 0
                    var request = guest.request(operation.rawValue, node, arguments)
                    mutate(&request, &random)
                    guest.cuts = random.below(3) == 0 ? [] : (0...random.below(4)).map { _ in 1 + random.below(200) }
                    let room = random.below(4) == 0 ? random.below(64) : 4096
                    let (used, reply) = guest.raw(request, room: room)
                    #expect(used == 0 || used >= 16)
                    guard used >= 16, value(reply, fuse_out_header.self).error == 0 else { continue }
                    served += 1
                    let payload = Array(reply.dropFirst(16))
                    // Numbers that the server gave are good to go on with.
                    if payload.count >= 128 { nodes.append(value(payload, fuse_entry_out.self).nodeid) }
                    if payload.count == 16 { handles.append(value(payload, UInt64.self)) }
                    if payload.count == 144 { handles.append(value(Array(payload.dropFirst(128)), UInt64.self)) }
                    if random.below(400) == 0 { _ = try? guest.walk("data/directory") }
                    // The share may have lost what the requests need, or the server may have been told to forget all.
                    if random.below(100) == 0 {
                        scene.scratch.write("share/file", "inside")
                        nodes = [1, nodes[nodes.count - 1]]
                        for path in ["data", "data/file", "data/directory"] {
                            if let entry = try? guest.walk(path) { nodes.append(entry.nodeid) }
                        }
                    }
                }
                #expect(served > count / 20, "\(served) of \(count) served")
                #expect(scene.isUntouched)
                guest.cuts = []
                #expect(guest.error(.destroy, 0, []) == 0)
                #expect(guest.server.nodes.count == 3 && guest.server.handles.count == 0)
                #expect(geteuid() == 0 && getegid() == 0)
            }
            #expect(openDescriptors() == before)
        }

        private func mutate(_ request: inout [UInt8], _ random: inout Random) {
            // Not into DESTROY, INTERRUPT or INIT too often: the header's operation stays as it is.
            switch random.below(6) {
            case 0:
                for _ in 0...random.below(4) where request.count > 40 {
                    request[40 + random.below(request.count - 40)] = UInt8(truncatingIfNeeded: random.next())
                }
            case 1: request.removeLast(random.below(request.count))
            case 2: request += (0..<random.below(100)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
            case 3 where request.count >= 48:
                let interesting: [UInt64] = [0, 1, .max, 1 << 63, 1 << 31, 0xffff_ffff, 4096]
                let at = 40 + random.below(request.count - 47)
                request.replaceSubrange(at..<at + 8, with: wire(interesting[random.below(interesting.count)]))
            default: break
            }
            if request.count >= 4, random.below(20) != 0 {
                request.replaceSubrange(0..<4, with: wire(UInt32(request.count)))
            }
        }
    }
}
