import Glibc
import LinuxSystem

/// The command line of a device: `martlet-device vsock|files|blk [--uid N] [--gid N]`; beside these there is `container`.
struct Arguments {
    enum Device: String {
        case vsock, files, blk
    }

    struct UsageError: Error, CustomStringConvertible {
        var description: String
    }

    var device: Device
    var privileges: Privileges

    init(_ words: some Sequence<String>) throws(UsageError) {
        var words = words.makeIterator()
        guard let name = words.next(), let device = Device(rawValue: name) else {
            throw UsageError(
                description: "usage: martlet-device vsock|files|blk [--uid N] [--gid N], or container TITLE")
        }
        self.device = device
        // A file server is root with few capabilities left; it takes on the user of each request.
        let user: uid_t = device == .files ? 0 : nobody
        privileges = Privileges(
            capabilities: device == .files ? .fileServer : [], user: user, group: user)
        while let word = words.next() {
            guard word == "--uid" || word == "--gid" else { throw UsageError(description: "unknown argument \(word)") }
            guard let number = words.next().flatMap({ UInt32($0) }), number != UInt32.max else {
                throw UsageError(description: "\(word) wants a number")
            }
            if word == "--uid" { privileges.user = number } else { privileges.group = number }
        }
    }
}
