import AgentContract
import Glibc
import GuestSystem
import LinuxSystem
import Synchronization

/// The file device, on which the host shows the trees of containers.
enum Shares {
    private static let mounted = Mutex(false)

    /// Mounts it once; the device may need a moment to be there.
    static func mount(on path: String, wait: Duration, isInit: Bool) throws(AgentFailure) {
        // Outside a guest, shares are plain directories.
        if !isInit { return }
        try mounted.withLock { mounted throws(AgentFailure) in
            if mounted { return }
            let clock = ContinuousClock()
            let end = clock.now + wait
            while true {
                do throws(SystemError) {
                    try makeDirectories(path)
                    try GuestMounts.mountAt(ShareDevice.tag, path, "virtiofs", 0)
                    mounted = true
                    return
                } catch {
                    if clock.now >= end { throw AgentFailure(error) }
                    usleep(10_000)
                }
            }
        }
    }

    /// Lets go of it, so that everything written is with the host.
    static func unmount(from path: String) {
        mounted.withLock { mounted in
            if mounted { umount2(path, Int32(MNT_DETACH)) }
            mounted = false
        }
    }
}
