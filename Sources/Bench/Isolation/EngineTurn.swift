import LinuxSystem

/// What one engine does in the turn of one runtime.
struct EngineTurn {
    let engine: any IsolationEngine
    let runtime: IsolationEngineRuntime
    let id: String
    let rootfs: String
    let brood: Brood
    /// How long one command may take.
    let limit: Duration

    /// The container prints a word and sleeps; then a command is executed in it, and it is killed.
    ///
    /// - Throws: `BenchError` where it does not start. The container has been removed then.
    func perform() throws -> TurnResult {
        let key = engine.turn.rawValue
        do {
            let process = try call(
                engine.run(id, by: runtime, rootfs: rootfs, ["/bin/sh", "-c", "echo up; exec sleep 86400"]))
            let first = try process.waitForOutput(limit)
            var result = TurnResult(figures: ["\(key)-start": Double(first - process.begin) / 1e6])
            result.figures["\(key)-memory"] = brood.memoryAtRest()
            do {
                let exec = try call(engine.exec(id, by: runtime, ["/bin/true"]))
                result.figures["\(key)-exec"] = try exec.waitForSuccess(limit)
            } catch let error as BenchError { result.missed["\(key)-exec"] = "\(error)" }
            _ = try call(engine.kill(id, by: runtime)).waitForEnd(.seconds(20), isCleanup: true)
            _ = try process.waitForEnd(.seconds(20), isCleanup: true)
            return result
        } catch {
            for command in engine.remove(id, by: runtime) {
                _ = try? call(command).waitForEnd(.seconds(20), isCleanup: true)
            }
            throw error
        }
    }

    private func call(_ arguments: [String]) throws -> RuntimeProcess { try RuntimeProcess(engine.program, arguments) }
}
