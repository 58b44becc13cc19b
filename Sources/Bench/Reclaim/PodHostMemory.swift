import Glibc
import LinuxSystem

/// What a pod takes of the host's memory, bytes: its processes, and the files of memory that its guest has.
enum PodHostMemory {
    /// - Throws: `BenchError` where one of the processes has ended.
    static func measure(_ state: ServingPod.State) throws -> UInt64 {
        var processes: [ProcessMemory] = []
        var files: [Identity: UInt64] = [:]
        for process in state.processes {
            do { processes.append(try ProcessMemory(process: process.name, pid: process.pid)) } catch {
                throw BenchError("\(process.name) of the pod has ended: \(error)")
            }
            try addMemoryFiles(of: process.pid, to: &files)
        }
        let total = processes.total
        // Of a file of memory all blocks count, whoever maps them; of a template what the machine has written to.
        let guest = max(UInt64(total.guestOwnKiB) << 10, files.values.reduce(0, +))
        return UInt64(total.proportionalKiB) << 10 + guest
    }

    private struct Identity: Hashable {
        var device: UInt
        var inode: UInt
    }

    /// The files of memory that a process has open, with the bytes of their blocks.
    private static func addMemoryFiles(of process: Int32, to files: inout [Identity: UInt64]) throws {
        let directory = "/proc/\(process)/fd"
        for number in try directoryNames(directory) {
            let path = "\(directory)/\(number)"
            guard let target = symbolicLink(path),
                ["/memfd:", "/martlet-"].contains(where: { target.hasPrefix($0) })
            else { continue }
            var facts = stat()
            guard stat(path, &facts) == 0 else { continue }
            files[Identity(device: UInt(facts.st_dev), inode: UInt(facts.st_ino))] = UInt64(facts.st_blocks) * 512
        }
    }
}
