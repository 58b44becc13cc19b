import Glibc

/// The guest's word with the host: lines on the console.
///
///     martlet-bench begin NAME
///     martlet-bench end NAME AMOUNT
///     martlet-bench done
///     martlet-bench failed REASON
enum Mark {
    /// Does one phase between its two lines; `amount` is what was done in it, in bytes or pieces.
    static func phase(_ name: String, amount: Int, _ body: () throws -> Void) rethrows {
        say("begin \(name)")
        try body()
        say("end \(name) \(amount)")
    }

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
