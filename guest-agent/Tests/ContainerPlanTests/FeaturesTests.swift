import OCISpec
import Testing

@testable import ContainerPlan

/// What the host says of Martlet's features is what the agent does.
@Suite struct FeaturesTests {
    @Test func mountOptionsAreThoseThatTheAgentHonours() {
        let attributes = MountOptions.attributeOptions.keys
        let others = ["bind", "rbind", "defaults", "tmpcopyup"] + MountOptions.fileSystemOptions.keys
        let agents = Set(attributes).union(attributes.map { "r\($0)" }).union(others).union(
            MountOptions.propagations.keys)
        // From the guest to the host these can't be; mapped ids are the host's part, which takes their options away.
        #expect(
            Set(Features.martlet.mountOptions)
                == agents.subtracting(["shared", "rshared"]).union(["idmap", "ridmap"]))
        #expect(MountOptions.refused == ["idmap", "ridmap"])
    }

    @Test func filtersAreThoseThatTheAgentMakes() throws {
        let features = Features.martlet.linux.seccomp
        for action in features.actions {
            var filter = Linux.Seccomp(defaultAction: action)
            filter.flags = features.knownFlags
            filter.architectures = features.archs
            _ = try SeccompFilter(SeccompPlan(filter))
        }
        #expect(Set(features.operators) == Set(SeccompPlan.operators))
        #expect(!features.actions.contains("SCMP_ACT_NOTIFY"))
    }
}
