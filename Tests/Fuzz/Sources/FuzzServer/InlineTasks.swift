import Glibc

/// Runs the tasks of Swift's concurrency on the thread that asks for it, in their order, so that an execution is the same
/// every time.
///
/// Source: swift_task_enqueueGlobal_hook of the runtime (stdlib/public/Concurrency, Task.h).
enum InlineTasks {
    private typealias Original = @convention(thin) (UnownedJob) -> Void
    private typealias Hook = @convention(thin) (UnownedJob, Original) -> Void

    /// Only one thread runs tasks, and makes them.
    nonisolated(unsafe) private static var waiting: [UnownedJob] = []
    private static let executor = InlineExecutor()

    /// From now on tasks wait for `run`.
    static func begin() {
        guard let symbol = dlsym(dlopen(nil, RTLD_NOW), "swift_task_enqueueGlobal_hook") else {
            fatalError("the runtime has no hook for tasks")
        }
        let hook: Hook = { job, _ in InlineTasks.waiting.append(job) }
        symbol.assumingMemoryBound(to: Hook.self).pointee = hook
    }

    /// Runs tasks until none is ready.
    static func run() {
        while !waiting.isEmpty {
            let jobs = waiting
            waiting = []
            for job in jobs { job.runSynchronously(on: executor.asUnownedSerialExecutor()) }
        }
    }
}

private final class InlineExecutor: SerialExecutor {
    func enqueue(_ job: consuming ExecutorJob) { UnownedJob(job).runSynchronously(on: asUnownedSerialExecutor()) }
}
