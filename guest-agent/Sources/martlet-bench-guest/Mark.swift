import Glibc

/// The guest's word with the host: lines on the console, or on the standard output of a container.
///
///     martlet-bench begin NAME
///     martlet-bench end NAME AMOUNT
///     martlet-bench missed NAME REASON
///     martlet-bench done
///     martlet-bench failed REASON
enum Mark {
    /// Does one phase between its two lines; `amount` is what was done in it, in bytes or pieces.
    static func phase(_ name: String, amount: Int, _ body: () throws -> Void) rethrows {
        try phase(name) {
            try body()
            return amount
        }
    }

    /// The same where `body` returns what was done.
    static func phase(_ name: String, _ body: () throws -> Int) rethrows {
        say("begin \(name)")
        let amount = try body()
        say("end \(name) \(amount)")
    }

    /// A phase that can't be done, where the others can.
    static func missed(_ name: String, _ reason: String) { say("missed \(name) \(reason)") }

    static func done() { say("done") }

    static func failed(_ reason: String) { say("failed \(reason)") }

    private static func say(_ words: String) {
        let line = Array("martlet-bench \(words)\n".utf8)
        _ = line.withUnsafeBytes { write(1, $0.baseAddress, $0.count) }
        // Until the host has it: what comes next must not wait for what a serial line takes.
        tcdrain(1)
    }
}

/// Why the guest does not do as asked.
struct Refusal: Error, CustomStringConvertible {
    var description: String
    init(_ description: String) { self.description = description }
}
