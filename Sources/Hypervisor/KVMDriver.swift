public import Logging

/// Runs virtual machines with Martlet's own program on KVM, `martlet-vmm`.
public struct KVMDriver: HypervisorDriver {
    public let name = "kvm"
    let logger: Logger

    public init(logger: Logger) { self.logger = logger }

    public func launch(_ configuration: VMConfiguration) throws -> any VirtualMachine {
        try KVMMachine(self, configuration)
    }

    public func restore(_ configuration: VMConfiguration, _ devices: RestoredDevices) throws -> any VirtualMachine {
        try KVMMachine(self, configuration, devices)
    }
}
