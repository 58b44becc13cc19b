import LinuxSystem

/// vCPUs that come and go while the machine runs.
extension VMM {
    /// vCPUs that the guest has, or is getting.
    public var presentVCPUs: Int { platform.presentVCPUs }

    /// Gives the guest vCPUs, or asks it to let go of the last ones, until it has so many. The guest is told, and does its part in its
    /// own time; one that was asked for vCPUs and does not let go of them keeps them.
    ///
    /// - Throws: `MachineError` where the machine has not been booted, or can't have so many; `SystemError` where there is no thread
    ///   for one.
    public func setVCPUs(_ count: Int) throws {
        try lifecycle.require("vCPUs", \.isBooted)
        guard (1...maximumVCPUs).contains(count) else {
            throw MachineError("\(count) vCPUs: the machine can have 1 to \(maximumVCPUs)")
        }
        for index in 0..<count where !platform.isPresent(vcpu: index) {
            while madeVCPUs <= index { try makeVCPU() }
            threads.readmit(index)
            platform.insert(vcpu: index)
        }
        for index in (count..<maximumVCPUs).reversed() where platform.isPresent(vcpu: index) {
            platform.remove(vcpu: index)
        }
    }

    /// Makes one more vCPU, which the guest has not been told of.
    func makeVCPU() throws {
        let vcpu = try VCPU(vm, index: madeVCPUs)
        try platform.add(vcpu)
        madeVCPUs += 1
        try threads.add(vcpu)
    }
}
