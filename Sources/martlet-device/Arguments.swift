import Jail

/// The command line of a process that serves a guest: `martlet-device vsock|files|blk [--uid N]`, or
/// `martlet-device qemu [--uid N] --file PATH… -- PROGRAM ARGUMENT…`, which becomes QEMU in its jail; beside these
/// there is `container`.
struct Arguments {
    struct UsageError: Error, CustomStringConvertible {
        var description: String
    }

    /// The jail of the process.
    var plan: JailPlan
    /// What it becomes: a program and its arguments. Empty: it serves a device.
    private(set) var command: [String] = []

    private static let kinds: [JailPlan.Kind] = [.vsock, .files, .disk, .qemu]

    init(_ words: some Sequence<String>) throws(UsageError) {
        var words = words.makeIterator()
        guard let kind = words.next().flatMap({ JailPlan.Kind(rawValue: $0) }), Self.kinds.contains(kind) else {
            throw UsageError(
                description:
                    "usage: martlet-device vsock|files|blk [--uid N], qemu OPTION… -- COMMAND, or container TITLE")
        }
        plan = JailPlan(kind, user: JailPlan.nobody)
        var files: [String] = []
        while let word = words.next() {
            switch word {
            case "--uid": plan = JailPlan(kind, user: try Self.number(word, words.next()))
            case "--file" where kind == .qemu: files.append(try Self.value(word, words.next()))
            case "--" where kind == .qemu: while let word = words.next() { command.append(word) }
            default: throw UsageError(description: "unknown argument \(word)")
            }
        }
        guard kind == .qemu else { return }
        if command.isEmpty { throw UsageError(description: "qemu: no command") }
        plan.root = .only(files)
    }

    private static func value(_ option: String, _ word: String?) throws(UsageError) -> String {
        guard let word else { throw UsageError(description: "\(option) wants a value") }
        return word
    }

    private static func number(_ option: String, _ word: String?) throws(UsageError) -> UInt32 {
        guard let number = word.flatMap({ UInt32($0) }), number != UInt32.max else {
            throw UsageError(description: "\(option) wants a number")
        }
        return number
    }
}
