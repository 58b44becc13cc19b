public import Jail
import Logging

extension SandboxPlan {
    /// The jails of the processes that will serve the guest, and of the container's process on the host. `user` is nobody's: a
    /// pod gets its own when it is started.
    ///
    /// - Throws: where what QEMU needs can't be found.
    public func jails() throws -> [JailPlan] {
        let files: [JailPlan.Kind] = machine.hasFiles ? [.files] : []
        guard let qemu = driver.qemuDriver(logger: Logger(label: "plan") { _ in SwiftLogNoOpLogHandler() }) else {
            return ([.vmm] + files + [.container]).map { JailPlan($0, user: machine.user) }
        }
        let devices: [JailPlan.Kind] = [.vsock] + files + (container?.disks ?? []).map { _ in .disk } + [.container]
        return try [qemu.jail(machine)] + devices.map { JailPlan($0, user: machine.user) }
    }
}
