import AgentAPI
import AgentContract
import FuzzSupport
import TTRPC
import TaskAPI

@testable import PodService
@testable import Sandbox

/// Replies of the agent as the host reads them: messages with any numbers, and bytes that may be none.
final class AgentTarget: FuzzTarget {
    func run(_ input: inout Input) throws {
        switch input.byte() % 8 {
        case 0: try AgentCreateSandboxResponse(serializedBytes: input.rest()).checkProtocolVersion()
        case 1: report(ContainerStatistics(try AgentContainerStatsResponse(serializedBytes: input.rest())))
        case 2: report(ContainerStatistics(statistics(&input)))
        case 3:
            let reply = try AgentListProcessesResponse(serializedBytes: input.rest())
            for process in reply.processes { row(GuestProcess(process)) }
        case 4:
            row(
                GuestProcess(
                    .with {
                        ($0.pid, $0.userID, $0.parent) = (input.number(), input.number(), input.number())
                        ($0.age, $0.cpuTime) = (input.number64(), input.number64())
                        $0.terminal = String(decoding: input.take(8), as: UTF8.self)
                        $0.command = String(decoding: input.rest(), as: UTF8.self)
                    }))
        case 5:
            let exit = GuestAgent.ProcessExit(
                .with {
                    ($0.exitStatus, $0.signal) = (input.number(), input.number())
                    ($0.exitedAt, $0.oomKills) = (Int64(bitPattern: input.number64()), input.number64())
                })
            require(exit.record.status <= 255, "exit status \(exit.record.status)")
            let time = timestamp(exit.record.at)
            require(abs(time.nanos) < 1_000_000_000, "\(time)")
        case 6:
            let bytes = input.take(TargetMessage.encodedSize)
            if let message = TargetMessage(bytes) { require(message.encoded == bytes, "\(message) is not the same") }
        default:
            var frames = DatagramFrames()
            var count = 0
            while !input.isEmpty {
                let part = input.take(1 + Int(input.byte()))
                count += part.count
                frames.append(part)
                while let datagram = frames.next() { count -= 2 + datagram.count }
            }
            require(count >= 0, "more bytes in datagrams than came")
        }
    }

    private func statistics(_ input: inout Input) -> AgentContainerStatsResponse {
        let names = [
            "usage_usec", "user_usec", "system_usec", "throttled_usec", "nr_periods", "anon", "file", "oom_kill",
        ]
        return .with { reply in
            (reply.pidsCurrent, reply.pidsLimit) = (input.number64(), input.number64())
            (reply.memoryUsage, reply.memoryLimit) = (input.number64(), input.number64())
            (reply.swapUsage, reply.swapLimit, reply.memoryPeak) = (input.number64(), input.number64(), 7)
            for _ in 0..<input.byte() % 8 {
                reply.cpu[input.pick(names)] = input.number64()
                reply.memory[input.pick(names)] = input.number64()
                reply.memoryEvents[input.pick(names)] = input.number64()
            }
            for _ in 0..<input.byte() % 4 {
                reply.disks.append(
                    .with {
                        ($0.major, $0.minor) = (input.number64(), input.number64())
                        $0.counters[input.pick(["rbytes", "wbytes", "rios", "wios", "dios"])] = input.number64()
                    })
                reply.hugePages.append(
                    .with {
                        $0.pageSize = String(decoding: input.take(4), as: UTF8.self)
                        $0.current = input.number64()
                    })
            }
        }
    }

    /// For an engine, and as the command line prints it.
    private func report(_ statistics: ContainerStatistics) {
        let metrics = MetricsMetrics(statistics)
        _ = ContainerStatsReport(metrics)
        require((try? metrics.serializedBytes() as [UInt8]) != nil, "metrics that can't be encoded")
    }

    /// A row of the table of processes.
    private func row(_ process: GuestProcess) {
        let row = processRow(
            .with {
                ($0.pid, $0.userID, $0.parent) = (process.pid, process.userID, process.parent)
                ($0.age, $0.cpuTime) = (process.age, process.cpuTime)
                ($0.command, $0.terminal) = (process.command, process.terminal)
            })
        require(row.count == 8, "\(row.count) columns")
    }
}
