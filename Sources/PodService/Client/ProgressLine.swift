import Glibc
import LinuxSystem
import Synchronization

/// One line of a terminal that says what is waited for: after two seconds, and for as long as that takes.
public final class ProgressLine: Sendable {
    private enum State { case waiting, shown, ended }

    private let text: String
    private let descriptor: Int32
    private let delay: Duration
    private let state = Mutex(State.waiting)

    private init(_ text: String, _ descriptor: Int32, _ delay: Duration) {
        (self.text, self.descriptor, self.delay) = (text, descriptor, delay)
    }

    /// Runs `body`, and shows `text` while that takes long, where `descriptor` is a terminal. Nothing of it is left there.
    ///
    /// - Parameters:
    ///   - text: what is done: `fetching the image`.
    ///   - delay: from when on it is shown.
    public static func show<R>(
        _ text: String, on descriptor: Int32 = STDERR_FILENO, after delay: Duration = .seconds(2),
        isolation: isolated (any Actor)? = #isolation, _ body: () async throws -> R
    ) async rethrows -> R {
        guard isatty(descriptor) == 1 else { return try await body() }
        let line = ProgressLine(printable(text, limit: 60), descriptor, delay)
        let task = Task.detached { await line.run() }
        defer {
            task.cancel()
            line.end()
        }
        return try await body()
    }

    private func run() async {
        let begin = ContinuousClock.now
        try? await Task.sleep(for: delay)
        while !Task.isCancelled {
            let seconds = (ContinuousClock.now - begin).components.seconds
            state.withLock { state in
                if state == .ended { return }
                state = .shown
                // The cursor goes back: a line of the log takes its place.
                write("\r\u{1b}[K\(text) … \(seconds) s\r")
            }
            try? await Task.sleep(for: .seconds(1))
        }
    }

    private func end() {
        state.withLock { state in
            if state == .shown { write("\r\u{1b}[K") }
            state = .ended
        }
    }

    private func write(_ text: String) { _ = text.withCString { Glibc.write(descriptor, $0, strlen($0)) } }
}
