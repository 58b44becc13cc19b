import AgentContract
import Glibc
import LinuxSystem
import Logging
import OCISpec
import Sandbox
import SwiftProtobuf
import Synchronization
import TTRPC
import TaskAPI
import Testing

@testable import Shim

/// What the shim and containerd exchange beside the Task service.
@Suite struct ShimStartTests {
    /// The three forms in which containerd reads where a shim listens.
    @Test func theAnswerIsWhatTheContainerdAtHandReads() throws {
        func answer(_ environment: [String: String], _ input: [UInt8] = []) throws -> [UInt8] {
            let parameters = BootstrapParams(input: input, id: "a", namespace: "n")
            return try BootstrapAnswer(environment: environment, parameters: parameters).bytes("unix:///s")
        }
        #expect(try answer([:]) == Array("unix:///s".utf8))
        // containerd 1.7 and CRI-O, which know no more.
        #expect(try answer(["MAX_SHIM_VERSION": "2"]) == Array("unix:///s".utf8))
        let options =
            try Google_Protobuf_Any.with { $0.typeURL = "runtimeoptions.v1.Options" }.serializedBytes() as [UInt8]
        #expect(try answer(["MAX_SHIM_VERSION": "2"], options) == Array("unix:///s".utf8))
        // containerd 2.0.
        let json = #"{"version":3,"address":"unix:///s","protocol":"ttrpc"}"#
        #expect(try answer(["MAX_SHIM_VERSION": "4"]) == Array(json.utf8))
        // containerd 2.3, which says 2 all the same. Its decoder must not take the answer for a text.
        let message = try answer(["MAX_SHIM_VERSION": "2"], bytes(of: parameters(id: "a")))
        #expect(message == [8, 3, 0x12, 9] + Array("unix:///s".utf8) + [0x1a, 5] + Array("ttrpc".utf8))
        // Parameters of another container.
        #expect(try answer(["MAX_SHIM_VERSION": "2"], bytes(of: parameters(id: "b"))) == Array("unix:///s".utf8))
    }

    private func parameters(id: String, level: Int32 = 0) -> BootstrapParams {
        .with {
            $0.instanceID = id
            $0.namespace = "n"
            $0.logLevel = level
        }
    }

    private func bytes(of parameters: BootstrapParams) throws -> [UInt8] { try parameters.serializedBytes() }

    @Test func theLogIsAsDetailedAsContainerds() throws {
        let levels: [Int32] = [-8, -4, 0, 4, 12]
        let debugs = try levels.map { level in
            let input = try bytes(of: parameters(id: "a", level: level))
            return BootstrapParams(input: input, id: "a", namespace: "n")?.wantsDebug
        }
        #expect(debugs == [true, true, false, false, false])
    }

    /// What containerd's CRI plugin reads of a runtime: Features as JSON under containerd's own name for them.
    @Test func theInformationHasTheFeatures() throws {
        let info = try IntrospectionRuntimeInfo(serializedBytes: try ShimInfo.bytes())
        #expect(info.name == "io.containerd.martlet.v2")
        #expect(
            info.features.typeURL == "types.containerd.io/opencontainers/runtime-spec/1/features/Features")
        let features = try JSON.decode(Features.self, from: Array(info.features.value), file: "features")
        #expect(features.mountOptions.contains("rro") && features.linux.namespaces.contains("user"))
        #expect(features.linux.mountExtensions.idmap.enabled == true)
        #expect(features.annotations["io.martlet.version"] == martletVersion)
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
