import AgentAPI
import FoundationEssentials
import LinuxSystem
import PodNetwork

extension AgentUpdateNetworkRequest {
    /// A plan in the agent's words.
    init(_ plan: NetworkPlan) {
        self.init()
        interfaces = plan.interfaces.map { interface in
            .with {
                $0.name = interface.name
                $0.hardwareAddress = Data(interface.hardwareAddress)
                $0.mtu = interface.mtu
                $0.up = interface.isUp
                $0.noArp = interface.hasNoARP
                $0.addresses = interface.addresses.map { address in
                    .with {
                        $0.address = Data(address.prefix.address.bytes)
                        $0.prefixLength = UInt32(address.prefix.length)
                        $0.broadcast = Data(address.broadcast?.bytes ?? [])
                        $0.scope = UInt32(address.scope)
                    }
                }
            }
        }
        routes = plan.routes.map { AgentRoute($0.route, device: $0.device) }
        neighbours = plan.neighbours.map { neighbour in
            .with {
                $0.address = Data(neighbour.address.bytes)
                $0.hardwareAddress = Data(neighbour.hardwareAddress)
                $0.device = neighbour.device
            }
        }
    }
}

extension AgentRoute {
    fileprivate init(_ route: NetworkRoute, device: String) {
        self.init()
        destination = Data(route.destination?.address.bytes ?? [])
        prefixLength = UInt32(route.destination?.length ?? 0)
        gateway = Data(route.gateway?.bytes ?? [])
        self.device = device
        preferredSource = Data(route.preferredSource?.bytes ?? [])
        scope = UInt32(route.scope)
        metric = route.metric
        type = UInt32(route.type)
        onlink = route.isOnlink
        mtu = route.mtu
        family = UInt32(route.family)
    }
}
