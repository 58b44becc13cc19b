import CLinux
import Glibc
import Synchronization

/// What each thread that `startThread` starts does first, with its name: it gives up what its work does not need.
private let prologue = Mutex<(@Sendable (String) -> Void)?>(nil)

/// Has each thread that is started from now on call `body` before its work, with the name that it was started with.
public func beginThreads(with body: @escaping @Sendable (String) -> Void) { prologue.withLock { $0 = body } }

/// Starts a detached thread, for work that blocks.
///
/// - Parameters:
///   - name: shown by `ps -L` and debuggers; the kernel keeps 15 bytes.
///   - stackSize: bytes.
public func startThread(
    _ name: String, stackSize: Int = 256 << 10, _ body: @Sendable @escaping () -> Void
) throws(SystemError) {
    final class Body {
        let name: String
        let run: @Sendable () -> Void
        init(name: String, run: @Sendable @escaping () -> Void) {
            self.name = name
            self.run = run
        }
    }
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    pthread_attr_setstacksize(&attributes, max(stackSize, 64 << 10))
    let argument = Unmanaged.passRetained(Body(name: name, run: body))
    var thread = pthread_t()
    let result = pthread_create(
        &thread, &attributes,
        { argument in
            guard let argument else { return nil }
            let body = Unmanaged<Body>.fromOpaque(argument).takeRetainedValue()
            _ = String(body.name.prefix(15)).withCString { martlet_prctl(PR_SET_NAME, UInt(bitPattern: $0), 0, 0, 0) }
            prologue.withLock { $0 }?(body.name)
            body.run()
            return nil
        }, argument.toOpaque())
    if result != 0 {
        argument.release()
        throw SystemError("pthread_create", name, errno: .init(rawValue: result))
    }
}

/// A value that is set once. Threads can block, and tasks can suspend, until it is set.
public final class Promise<Value: Sendable>: Sendable {
    private let state = Mutex<(value: Value?, waiters: [CheckedContinuation<Value, Never>])>((nil, []))
    private let settled: EventDescriptor

    public init() throws(SystemError) { settled = try EventDescriptor() }

    /// Sets the value. Only the first call counts.
    ///
    /// - Returns: whether this call was the first.
    @discardableResult
    public func settle(_ value: Value) -> Bool {
        let waiters: [CheckedContinuation<Value, Never>]? = state.withLock { state in
            guard state.value == nil else { return nil }
            state.value = value
            defer { state.waiters = [] }
            return state.waiters
        }
        guard let waiters else { return false }
        settled.signal()
        for waiter in waiters { waiter.resume(returning: value) }
        return true
    }

    /// The value; nil while it is not set.
    public var current: Value? { state.withLock { $0.value } }

    /// Suspends until the value is set.
    public func value() async -> Value {
        await withCheckedContinuation { continuation in
            let value: Value? = state.withLock { state in
                if state.value == nil { state.waiters.append(continuation) }
                return state.value
            }
            if let value { continuation.resume(returning: value) }
        }
    }

    /// Blocks the thread until the value is set; nil after `timeout`.
    public func wait(timeout: Duration? = nil) -> Value? {
        let clock = ContinuousClock()
        let end = timeout.map { clock.now + $0 }
        while true {
            if let value = current { return value }
            var milliseconds: Int32 = -1
            if let end {
                let left = clock.now.duration(to: end)
                if left <= .zero { return nil }
                // A day at a time.
                milliseconds = Int32(min(left, .seconds(86_400)) / .milliseconds(1)) + 1
            }
            var item = pollfd(fd: settled.descriptor.raw, events: Int16(POLLIN), revents: 0)
            poll(&item, 1, milliseconds)
        }
    }
}

/// Runs work that blocks on a new thread, so that it blocks no thread of Swift's pool.
public func onThread<Value: Sendable>(
    _ name: String, _ body: @Sendable @escaping () throws -> Value
) async throws -> Value {
    try await withCheckedThrowingContinuation { continuation in
        do {
            try startThread(name) { continuation.resume(with: Result(catching: body)) }
        } catch {
            continuation.resume(throwing: error)
        }
    }
}
