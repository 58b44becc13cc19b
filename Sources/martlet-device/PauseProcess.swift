import CLinux
import DeviceService
import Glibc
import LinuxSystem

/// `martlet-device pause`: a process in the pod's network namespace that does nothing else.
enum PauseProcess {
    /// By agreement with whoever starts this program: the namespace, and where a byte goes when it is entered.
    private static let namespace: Int32 = 3, ready: Int32 = 4

    static func run(parent: pid_t) throws {
        try check("setns", "network namespace", martlet_enter_network(namespace))
        try Privileges(capabilities: [], user: nobody, group: nobody).apply(parent: parent)
        var byte: UInt8 = 1
        try check("write", "ready", write(ready, &byte, 1))
        close(namespace)
        close(ready)
        while true { pause() }
    }
}
