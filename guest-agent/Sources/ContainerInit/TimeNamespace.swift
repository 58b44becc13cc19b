import CAgent
import ContainerPlan
import Glibc
import GuestSystem
import LinuxSystem

/// Clocks of a container's own (time_namespaces(7)).
enum TimeNamespace {
    /// Makes the namespace, sets its clocks while it is empty, and enters it.
    static func enter(offsets: String) throws(AgentFailure) {
        try during("new time namespace") {
            try check("unshare", "", martlet_agent_unshare(NamespaceFlag.time))
            if !offsets.isEmpty { try writeText(offsets, to: "/proc/self/timens_offsets") }
            let own = try OwnedDescriptor.open("/proc/self/ns/time_for_children", O_RDONLY)
            try check("setns", "", martlet_agent_setns(own.raw, NamespaceFlag.time))
        }
    }
}
