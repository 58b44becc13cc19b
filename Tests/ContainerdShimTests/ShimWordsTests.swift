import Glibc
import LinuxSystem
import Logging
import Sandbox
import SwiftProtobuf
import Synchronization
import TTRPC
import TaskAPI
import Testing

@testable import Shim

/// What the shim and containerd say to each other beside the Task service.
@Suite struct ShimWordsTests {
    @Test func theAnswerIsWhatTheContainerdAtHandReads() throws {
        func answer(_ environment: [String: String], _ input: [UInt8] = []) -> String {
            let answer = BootstrapAnswer(environment: environment, input: input, id: "a", namespace: "n")
            return String(decoding: answer.bytes("unix:///s"), as: UTF8.self)
        }
        #expect(answer([:]) == "unix:///s")
        // containerd 1.7 and CRI-O, which understands no more.
        #expect(answer(["MAX_SHIM_VERSION": "2"]) == "unix:///s")
        let options =
            try Google_Protobuf_Any.with { $0.typeURL = "runtimeoptions.v1.Options" }.serializedBytes() as [UInt8]
        #expect(answer(["MAX_SHIM_VERSION": "2"], options) == "unix:///s")
        let parameters =
            try BootstrapParams.with {
                $0.instanceID = "a"
                $0.namespace = "n"
            }.serializedBytes() as [UInt8]
        let third = #"{"version":3,"address":"unix:///s","protocol":"ttrpc"}"#
        #expect(answer(["MAX_SHIM_VERSION": "2"], parameters) == third)
        #expect(answer(["MAX_SHIM_VERSION": "4"]) == third)
    }

    /// Takes events as containerd does.
    private final class Containerd: EventsService {
        let topics = Mutex<[String]>([])

        func forward(_ request: EventForwardRequest, context: TTRPCContext) async throws -> Google_Protobuf_Empty {
            topics.withLock { $0.append(request.envelope.topic) }
            return .init()
        }
    }

    @Test func eventsWaitForContainerdAndKeepTheirOrder() async throws {
        let path = "/tmp/martlet-events-\(getpid())"
        defer { unlink(path) }
        let publisher = EventPublisher(address: path, namespace: "n", logger: Logger(label: "test"))
        publisher.publish(.started(container: "c", pid: 1))
        publisher.publish(.exited(container: "c", exec: "", pid: 1, ExitRecord(status: 3, at: 0)))
        try await Task.sleep(for: .milliseconds(300))
        let containerd = Containerd()
        let server = TTRPCServer([.events(containerd)])
        try await server.serve(unixPath: path)
        await publisher.finish(within: .seconds(10))
        #expect(containerd.topics.withLock { $0 } == ["/tasks/start", "/tasks/exit"])
        await server.stop()
    }

    @Test func anExecsExitHasItsOwnID() throws {
        let record = ExitRecord(status: 137, at: 1_500_000_000)
        let (_, first) = EventPublisher.wire(.exited(container: "c", exec: "", pid: 1, record))
        let (_, exec) = EventPublisher.wire(.exited(container: "c", exec: "e", pid: 1, record))
        #expect((first as? EventTaskExit)?.id == "c")
        let exit = try #require(exec as? EventTaskExit)
        #expect(exit.id == "e" && exit.containerID == "c" && exit.exitStatus == 137)
        #expect(exit.exitedAt.seconds == 1 && exit.exitedAt.nanos == 500_000_000)
    }
}
