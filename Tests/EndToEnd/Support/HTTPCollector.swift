import Glibc
import LinuxSystem
import Synchronization

/// A server on a loopback address that keeps what is posted to it, and answers each request with one status.
final class HTTPCollector: Sendable {
    struct Request: Sendable {
        /// `POST /v1/traces`.
        var line: String
        var headers: [String]
        var body: [UInt8]
    }

    let port: Int
    private let listener: SharedDescriptor
    private let requests = Mutex<[Request]>([])

    /// - Parameter status: `200 OK`.
    init(answering status: String = "200 OK") throws {
        let socket = SharedDescriptor(
            OwnedDescriptor(
                owning: try check("socket", "", socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0))
            ))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let port: UInt16 = try withUnsafeMutablePointer(to: &address) { pointer in
            try pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                try check("bind", "", bind(socket.raw, address, length))
                try check("listen", "", listen(socket.raw, 16))
                try check("getsockname", "", getsockname(socket.raw, address, &length))
            }
            return UInt16(bigEndian: pointer.pointee.sin_port)
        }
        (self.port, listener) = (Int(port), socket)
        try startThread("collector") { [self] in
            while true {
                let connection = accept(listener.raw, nil, nil)
                if connection < 0 { return }
                serve(SharedDescriptor(OwnedDescriptor(owning: connection)), status)
            }
        }
    }

    deinit { end() }

    /// Takes no more connections.
    func end() { shutdown(listener.raw, Int32(SHUT_RDWR)) }

    private func serve(_ connection: SharedDescriptor, _ status: String) {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 64 << 10)
        let blank = Array("\r\n\r\n".utf8)
        var request: Request?
        while request == nil {
            let count = read(connection.raw, &chunk, chunk.count)
            if count <= 0 { return }
            bytes += chunk[..<count]
            guard let end = bytes.firstRange(of: blank) else { continue }
            let lines = String(decoding: bytes[..<end.lowerBound], as: UTF8.self).split(separator: "\r\n")
            let headers = lines.dropFirst().map { $0.lowercased() }
            let length = headers.first { $0.hasPrefix("content-length:") }.flatMap {
                Int($0.dropFirst("content-length: ".count))
            }
            let body = bytes[end.upperBound...]
            guard body.count >= length ?? 0 else { continue }
            request = Request(line: String(lines.first ?? ""), headers: headers, body: Array(body))
        }
        let answer = "HTTP/1.1 \(status)\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
        _ = answer.withCString { write(connection.raw, $0, strlen($0)) }
        if let request { requests.withLock { $0.append(request) } }
    }

    /// What has come so far.
    var received: [Request] { requests.withLock { $0 } }
}
