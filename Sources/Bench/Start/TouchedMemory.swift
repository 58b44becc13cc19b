import Glibc
import Hypervisor
import LinuxSystem
import Logging

/// How much of its memory a guest of the built-in VMM has touched when its agent is ready.
enum TouchedMemory {
    /// MiB of the guest's memory file that are allocated.
    static func measure(_ machine: VMConfiguration, timeout: Duration) async throws -> Double {
        let running = try KVMDriver(logger: .init(label: "bench") { _ in SwiftLogNoOpLogHandler() }).launch(machine)
        let result: Result<Int, any Error>
        do {
            try await running.agentReady(within: timeout)
            guard let vmm = running.processes.first(where: { $0.name == "martlet-vmm" }) else {
                throw BenchError("the machine has no process martlet-vmm")
            }
            result = .success(try allocatedBytes(ofGuest: machine.name, in: vmm.pid))
        } catch {
            result = .failure(error)
        }
        running.kill(.ended("measured"))
        _ = await running.end()
        return Double(try result.get()) / Double(1 << 20)
    }

    /// Bytes that are allocated of the guest's memory file, which the process has open.
    private static func allocatedBytes(ofGuest name: String, in process: Int32) throws -> Int {
        let directory = "/proc/\(process)/fd"
        for number in try directoryNames(directory) {
            guard let target = symbolicLink("\(directory)/\(number)"),
                ["/memfd:martlet-\(name)", "/martlet-\(name)"].contains(where: { target.hasPrefix($0) })
            else { continue }
            var facts = stat()
            try check("stat", target, stat("\(directory)/\(number)", &facts))
            return Int(facts.st_blocks) * 512
        }
        throw BenchError("martlet-vmm has no memory of a guest open")
    }
}
