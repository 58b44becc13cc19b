import CLinux
import LinuxSystem
import Synchronization

/// An edge-triggered interrupt that this process raises by itself.
///
/// An eventfd does the same for any process. But for an input of the I/O APIC KVM leaves it to a kernel thread: two context
/// switches for each interrupt, and on a busy host a wait.
final class InterruptLine: Sendable {
    private let machine: SharedDescriptor
    private let gsi: UInt32
    /// Two pulses that overlapped would be one, and the guest might miss the second one's reason.
    private let pulsing = Mutex(())

    init(_ vm: VM, gsi: UInt32) {
        machine = vm.descriptor
        self.gsi = gsi
    }

    /// Raises the interrupt and lowers it (KVM api.rst 4.25).
    func pulse() {
        pulsing.withLock { _ in
            for level: UInt32 in [1, 0] {
                var change = kvm_irq_level()
                change.irq = gsi
                change.level = level
                // It can't fail once the interrupt controllers are there.
                _ = withUnsafeMutablePointer(to: &change) {
                    martlet_ioctl_pointer(machine.raw, UInt(MARTLET_KVM_IRQ_LINE), UnsafeMutableRawPointer($0))
                }
            }
        }
    }
}
