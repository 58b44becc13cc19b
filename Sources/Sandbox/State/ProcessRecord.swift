import CLinux
import Glibc
import LinuxSystem

extension StateDirectory.ProcessRecord {
    /// The record of a running process; nil when there is none with this number.
    init?(name: String, pid: Int32) {
        guard let startTime = ProcessStatus.startTime(of: pid) else { return nil }
        self.init(name: name, pid: pid, startTime: startTime)
    }

    /// Kills those that still run, and waits until they have ended, at most five seconds: their control groups are empty
    /// then, and their sockets closed.
    static func end(_ records: [Self]) {
        let running = records.compactMap { $0.open() }
        for process in running { _ = martlet_pidfd_send_signal(process.raw, SIGKILL) }
        let end = ContinuousClock.now + .seconds(5)
        for process in running {
            var item = pollfd(fd: process.raw, events: Int16(POLLIN), revents: 0)
            let left = max(ContinuousClock.now.duration(to: end), .zero)
            while poll(&item, 1, Int32(left / .milliseconds(1))) < 0 && errno == EINTR {}
        }
    }

    /// A descriptor of the very process; nil when it has ended, though its number may be another's by now.
    private func open() -> SharedDescriptor? {
        let number = martlet_pidfd_open(pid, 0)
        guard number >= 0 else { return nil }
        let descriptor = SharedDescriptor(OwnedDescriptor(owning: number))
        return ProcessStatus.startTime(of: pid) == startTime ? descriptor : nil
    }
}
