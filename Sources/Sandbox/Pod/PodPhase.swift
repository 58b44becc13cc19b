import Hypervisor
import Logging

/// Where a pod is in its life. A pod goes through these in order; it may skip some, and never goes back.
enum PodPhase {
    /// Nothing has been made.
    case empty
    /// The machine is being started.
    case launching(PodLaunch)
    /// The agent answers.
    case running(RunningPod)
    /// Everything is being taken away; the task ends when nothing is left. The machine may still be powering off.
    case ending(Task<Void, Never>, machine: (any VirtualMachine)?)
    /// Nothing is left.
    case ended

    /// For messages.
    var name: String {
        switch self {
        case .empty: "not created"
        case .launching: "being started"
        case .running: "running"
        case .ending: "ending"
        case .ended: "ended"
        }
    }
}

/// What a pod has while its machine runs.
struct RunningPod: Sendable {
    let plan: SandboxPlan
    let configuration: Configuration
    let machine: any VirtualMachine
    let network: PodNetworking
    let cgroup: HostCgroup?
    /// Whom the pod's host processes run as.
    let user: PodUser
    let link: AgentLink
    let agent: GuestAgent
    let volumes: PodVolumes
    /// What a restored guest calls volumes, by the names that they have on this host.
    let volumeNames: [String: String]
    /// What of the host the file device serves.
    let shares: PodShares
    /// Follows the host's mounts below sources of bind mounts.
    let propagation: MountPropagation
    /// Of the host's files and block devices, what the machine has as disks.
    let disks: PodDisks
    /// What of the host the guest may connect to.
    let targets: PodTargets
    let resolvers: PodResolvers
    /// Of the container that the pod was made with.
    let firstShares: [ShareStorage]
    /// Stops the vCPUs while nothing is to be done; ends the machine when the agent stops answering.
    let rest: MachineRest
}
