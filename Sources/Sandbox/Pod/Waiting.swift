import LinuxSystem

/// Suspends until `body` has ended or `limit` has passed; what still runs then is left to itself.
package func waiting(atMost limit: Duration, _ body: @Sendable @escaping () async -> Void) async {
    guard let done = try? Promise<Void>() else { return await body() }
    Task {
        await body()
        done.settle(())
    }
    let timer = Task {
        try? await Task.sleep(for: limit)
        done.settle(())
    }
    await done.value()
    timer.cancel()
}
