import Glibc
import Hypervisor

/// The most that a pod's machine can get while it runs.
extension Configuration {
    /// What the built-in VMM's machines can have.
    private static let mostVCPUs = 32

    /// vCPUs; more than the host has would only contend with each other.
    var mostVCPUs: Int {
        let host = max(1, min(Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))), Self.mostVCPUs))
        return vm.maximumVCPUs.map { min($0, host) } ?? host
    }

    /// Of the host's memory, MiB.
    var mostMemoryMiB: Int {
        let host = Int(sysconf(Int32(_SC_PHYS_PAGES))) / (1 << 20 / Int(sysconf(Int32(_SC_PAGESIZE))))
        return vm.maximumMemoryMiB.map { min($0, host) } ?? host
    }
}

extension VMConfiguration {
    /// Lets the machine get as much as the configuration allows. All pods' machines have the same room, so that one template serves
    /// pods of any size.
    mutating func makeRoom(_ configuration: Configuration) {
        maximumVCPUs = max(vcpus, configuration.mostVCPUs)
        maximumMemoryMiB = max(memoryMiB, configuration.mostMemoryMiB)
    }
}
