import CLinux
import Glibc
import LinuxSystem
import Testing

@testable import Sandbox

/// Relays between real pipes and sockets.
@Suite struct StreamRelayTests {
    private func fill(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) } }

    private func writeAll(_ bytes: [UInt8], to descriptor: Int32) {
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes {
                write(descriptor, $0.baseAddress! + done, min(70_001, bytes.count - done))
            }
            if count < 0 && errno != EINTR { return }
            done += max(count, 0)
        }
    }

    private func readAll(_ descriptor: Int32, pause: useconds_t = 0) -> [UInt8] {
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 50_000)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            if count <= 0 { return all }
            all += buffer.prefix(count)
            if pause > 0 { usleep(pause) }
        }
    }

    @Test func carriesEverythingToASlowReader() async throws {
        let (engineRead, engineWrite) = try SharedDescriptor.pipe()
        let (host, guest) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let bytes = fill(3 << 20)
        // The relay owns a copy of its own, which closes with it: the reader sees the end.
        var relay: StreamRelay? = try StreamRelay(
            name: "out", engine: SharedDescriptor(OwnedDescriptor(owning: fcntl(engineWrite.raw, F_DUPFD_CLOEXEC, 3))),
            guest: host, direction: .fromGuest)
        replace(engineWrite)
        let writer = Task.detached { [self] in
            writeAll(bytes, to: guest.raw)
            shutdown(guest.raw, Int32(SHUT_WR))
        }
        let reader = Task.detached { [self] in readAll(engineRead.raw, pause: 2000) }
        await relay?.finish()
        relay = nil
        await writer.value
        #expect(await reader.value == bytes)
    }

    @Test func endOfInputReachesTheGuest() async throws {
        let (engineRead, engineWrite) = try SharedDescriptor.pipe()
        let (host, guest) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let bytes = fill(1 << 20)
        let relay = try StreamRelay(name: "in", engine: engineRead, guest: host, direction: .toGuest)
        let writer = Task.detached { [self] in
            writeAll(bytes, to: engineWrite.raw)
            replace(engineWrite)
        }
        let reader = Task.detached { [self] in readAll(guest.raw) }
        await relay.finish()
        await writer.value
        #expect(await reader.value == bytes)
    }

    @Test func aReaderThatGoesEndsTheRelay() async throws {
        signal(SIGPIPE, SIG_IGN)
        let (engineRead, engineWrite) = try SharedDescriptor.pipe()
        let (host, guest) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let relay = try StreamRelay(name: "out", engine: engineWrite, guest: host, direction: .fromGuest)
        replace(engineRead)
        await relay.finish()
        var byte: UInt8 = 0
        #expect(read(guest.raw, &byte, 1) == 0)
        #expect(send(guest.raw, &byte, 1, Int32(MSG_NOSIGNAL)) == -1)
    }

    @Test func cancelEndsARelayThatWaits() async throws {
        let (engineRead, engineWrite) = try SharedDescriptor.pipe()
        let (host, guest) = try SharedDescriptor.socketPair(SOCK_STREAM)
        let relay = try StreamRelay(name: "in", engine: engineRead, guest: host, direction: .toGuest)
        relay.cancel()
        await relay.finish()
        var byte: UInt8 = 0
        #expect(read(guest.raw, &byte, 1) == 0)
        _ = engineWrite
    }

    /// Closes what the descriptor refers to, keeping its number from being used again.
    private func replace(_ descriptor: SharedDescriptor) {
        let null = open("/dev/null", O_RDWR | O_CLOEXEC)
        dup2(null, descriptor.raw)
        close(null)
    }
}
