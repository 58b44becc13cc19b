import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import FileService

extension FilesTests {
    /// States that are cut off, changed, too large, or don't fit together.
    @Suite struct BadStates {
        private typealias Scene = States.Scene

        private func smallState() throws -> (Scene, [UInt8]) {
            let scene = try Scene([("data", "data", false), ("single", "data/file", true)])
            try scene.guest.start()
            let deep = try scene.guest.walk("data/sub/deep/down").nodeid
            _ = try scene.guest.open(deep, O_RDWR)
            _ = try scene.guest.open(scene.guest.walk("data/file").nodeid)
            _ = try scene.guest.openDirectory(scene.guest.walk("data/sub").nodeid)
            scene.guest.forget(try scene.guest.walk("data/other").nodeid, .max)
            _ = try scene.guest.walk("data/link")
            let fifo = try scene.guest.walk("data/fifo").nodeid
            #expect(fifo > 0 && unlink(scene.scratch.path + "/data/fifo") == 0)
            return (scene, try scene.guest.server.save())
        }

        @Test func limitsHold() throws {
            let scene = try Scene()
            try scene.guest.start()
            let list = try scene.guest.walk("data/list").nodeid
            _ = try scene.guest.list(list, plus: true)
            let file = try scene.guest.walk("data/file").nodeid
            for _ in 0..<50 { _ = try scene.guest.open(file) }
            let state = try scene.guest.server.save()
            let descriptors = openDescriptors()
            var options = FileServer.Options()
            options.maximumNodes = 40
            #expect(scene.refusal(state, options).contains("elements of nodes, more than 39"))
            options = FileServer.Options()
            options.descriptorLimit = 64
            #expect(scene.refusal(state, options) == "file server state, handles: 50 elements of handles, more than 43")
            options = FileServer.Options()
            options.memoryLimit = 20_000
            #expect(scene.refusal(state, options).hasPrefix("file server state: no memory for "))
            options.memoryLimit = 60_000
            #expect(
                scene.refusal(state, options)
                    == "fs/data/file was open and can't be opened again: Cannot allocate memory")
            #expect(openDescriptors() == descriptors)
            let next = try scene.restored(state)
            #expect(next.server.memory.taken == scene.guest.server.memory.taken)
            try next.send(.destroy, 0, [])
            let fresh = try FuseGuest()
            try fresh.share("data", scene.scratch.path + "/data", fileSystem: "fs")
            #expect(next.server.memory.taken == fresh.server.memory.taken)
            // Not on a server that has begun.
            #expect(throws: FileStateError("file server state: the server has served requests already")) {
                try scene.guest.server.restore(state)
            }
            #expect(try scene.guest.walk("data/list").nodeid == list, "it goes on")
        }

        /// Wherever it is cut off, and with bytes behind its end.
        @Test func aTruncatedStateIsRefused() throws {
            let (scene, state) = try smallState()
            let before = openDescriptors()
            for count in state.indices {
                #expect(scene.refusal(Array(state.prefix(count))).hasPrefix("file server state, "), "\(count) bytes")
            }
            #expect(scene.refusal(state + [0]) == "file server state, file: 1 bytes too many")
            #expect(openDescriptors() == before)
        }

        /// Each byte changed: a server that works, or an error, never a trap; nothing is left behind.
        @Test func changedBytesNeverTrap() throws {
            let (scene, state) = try smallState()
            let before = openDescriptors()
            var (refused, restored) = (0, 0)
            for position in state.indices {
                for value in [state[position] ^ 1, ~state[position]] {
                    var changed = state
                    changed[position] = value
                    do {
                        let next = try scene.restored(changed)
                        restored += 1
                        for path in ["data/sub/deep/down", "data/link", "single"] { _ = try? next.walk(path) }
                        for slot in next.server.nodes.slots.indices {
                            _ = next.error(.getattr, next.server.nodes.number(slot), wire(fuse_getattr_in()))
                        }
                        _ = try? next.server.save()
                        #expect(next.error(.destroy, 0, []) == 0)
                        #expect(next.server.nodes.count == 4 && next.server.handles.count == 0)
                    } catch is FileStateError {
                        refused += 1
                    }
                }
            }
            #expect(refused > 0 && restored > 0)
            #expect(openDescriptors() == before)
        }

        @Test func whatDoesNotFitTogetherIsRefused() throws {
            let (scene, state) = try smallState()
            func refusal(_ change: (inout ServerState) throws -> Void) throws -> String {
                var changed = try ServerState(state, maximumNodes: 100, maximumHandles: 100)
                #expect(changed.encoded() == state)
                try change(&changed)
                return scene.refusal(changed.encoded())
            }
            let read = try ServerState(state, maximumNodes: 100, maximumHandles: 100)
            func slot(_ name: String) throws -> Int {
                try #require(read.nodes.firstIndex { $0.name == Array(name.utf8) }) + ServerState.firstSlot
            }
            let (sub, deep, down) = (try slot("sub"), try slot("deep"), try slot("down"))
            let nodes = "file server state, nodes: "
            let index = { (slot: Int) in slot - ServerState.firstSlot }
            #expect(try refusal { _ in } == "restored")
            #expect(try refusal { $0.nodes[index(sub)].parent = deep } == nodes + "node \(sub) is in itself")
            #expect(try refusal { $0.nodes[index(deep)].parent = deep } == nodes + "node \(deep) is in itself")
            #expect(try refusal { $0.nodes[index(deep)].parent = 99 } == nodes + "node \(deep): 99 is no directory")
            #expect(try refusal { $0.nodes[index(deep)].parent = 1 } == nodes + "node \(deep): 1 is no directory")
            #expect(
                try refusal { $0.nodes[index(deep)].parent = down } == nodes + "node \(deep): \(down) is no directory")
            #expect(
                try refusal { $0.nodes[index(deep)].parent = $0.fileSystems[0].slot }
                    == nodes + "node \(deep): \(read.fileSystems[0].slot) is no directory")
            #expect(try refusal { $0.nodes[index(down)].parent = 0 } == nodes + "node \(down) is nowhere")
            for name in ["", ".", "..", "a/b", "/etc", "a\0b", String(repeating: "n", count: 256)] {
                #expect(
                    try refusal { $0.nodes[index(deep)].name = Array(name.utf8) }
                        == nodes + "node \(deep): its name is none")
            }
            #expect(try refusal { $0.nodes[index(deep)].generation = 0 } == nodes + "node \(deep): generation 0")
            #expect(try refusal { $0.nodes[index(deep)].type = S_IFREG }.contains("is no directory"))
            #expect(
                try refusal { $0.nodes.append(.init(generation: 1, kind: .synthetic)) }
                    == nodes + "2 directories of 1 file systems")
            let handles = "file server state, handles: "
            #expect(try refusal { $0.handles[0].node = 77 } == handles + "handle 0: node 77 can't be open")
            #expect(try refusal { $0.handles[0].node = 1 } == handles + "handle 0: node 1 can't be open")
            #expect(
                try refusal { $0.handles[0].flags = O_RDWR | O_TRUNC } == handles
                    + "handle 0: flags \(O_RDWR | O_TRUNC)")
            #expect(try refusal { $0.handles[0].flags = 3 } == handles + "handle 0: flags 3")
            #expect(try refusal { $0.handles[2].flags = 1 } == handles + "handle 2: flags 1")
            #expect(try refusal { $0.handles[0].generation = 0 } == handles + "handle 0: generation 0")
            let shares = "file server state, shares: "
            #expect(try refusal { $0.shares.swapAt(0, 1) }.hasPrefix(shares + "numbers [3, 2] are not in order"))
            #expect(try refusal { $0.session.nextID = 3 } == shares + "numbers [2, 3] are not in order below 3")
            #expect(
                try refusal { $0.session.nextID = .max } == "file server state, session: next number is \(Int32.max)")
            #expect(try refusal { $0.fileSystems[0].id = 3 } == shares + "a number stands there twice")
            #expect(
                try refusal { ($0.fileSystems[0].id, $0.session.nextID) = (9, 10) }
                    == shares + "the file systems are not those of the shares")
            #expect(try refusal { $0.fileSystems[0].slot = deep }.hasSuffix("node \(deep) is not its directory"))
            #expect(try refusal { $0.shares[0].slot = 1 } == shares + "share 2: node 1 is no file")
            #expect(try refusal { $0.shares[0].slot = 1 << 31 } == shares + "share 2: node \(1 << 31) is no file")
            #expect(try refusal { $0.shares[0].slot = $0.shares[1].slot }.contains("is nowhere"))
            // A share's root is the host's, whatever the state says where it is.
            #expect(
                try refusal { $0.shares[1].slot = down }
                    == "fs/single was open and can't be opened again: Read-only file system")
            var other = state
            other[8] = 9
            #expect(scene.refusal(other) == "file server state, file: version 9, not 1")
            other[0] = 0
            #expect(scene.refusal(other) == "file server state, file: not the state of a file server")
        }
    }
}
