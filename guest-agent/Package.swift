// swift-tools-version: 6.2
import PackageDescription

/// Every target: Swift 6 language mode, and a warning is an error.
let strict: [SwiftSetting] = [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]

func shared(_ product: String) -> Target.Dependency { .product(name: product, package: "martlet") }

func room(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

func program(_ name: String, _ more: [Target.Dependency] = []) -> Target {
    .executableTarget(
        name: name, dependencies: ["AgentServer", "ContainerInit", "GuestSystem"] + more, swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(name: name, dependencies: dependencies, swiftSettings: strict)
}

let package = Package(
    name: "martlet-guest-agent",
    products: [
        .executable(name: "martlet-agent", targets: ["martlet-agent"]),
        .executable(name: "martlet-agent-faulty", targets: ["martlet-agent-faulty"]),
        .executable(name: "martlet-bench-guest", targets: ["martlet-bench-guest"]),
    ],
    dependencies: [
        // By name: the directory of a checkout may be called anything.
        .package(name: "martlet", path: "..")
    ],
    targets: [
        .target(name: "CAgent"),
        .target(name: "CFault"),
        // Debian's libseccomp-dev, which has the static library too.
        .target(name: "CSeccomp", linkerSettings: [.linkedLibrary("seccomp")]),
        room("GuestSystem", ["CAgent", shared("LinuxSystem")]),
        room("ContainerPlan", ["GuestSystem", "CAgent", "CSeccomp", shared("LinuxSystem"), shared("OCISpec")]),
        room("ContainerInit", ["ContainerPlan", "GuestSystem", "CAgent", shared("LinuxSystem")]),
        room(
            "AgentServer",
            [
                "ContainerInit", "ContainerPlan", "GuestSystem", "CAgent", shared("LinuxSystem"), shared("OCISpec"),
                shared("TTRPC"), shared("AgentAPI"),
            ]),
        program("martlet-agent"),
        program("martlet-agent-faulty", ["CFault", shared("OCISpec")]),
        // Not part of the agent: the first process of a guest that `martlet bench` measures in.
        .executableTarget(
            name: "martlet-bench-guest", dependencies: ["GuestSystem", "CAgent", shared("LinuxSystem")],
            swiftSettings: strict),

        tests("ContainerPlanTests", ["ContainerPlan", shared("LinuxSystem"), shared("OCISpec")]),
        tests(
            "AgentServerTests",
            [
                "AgentServer", "martlet-agent", shared("LinuxSystem"), shared("OCISpec"), shared("TTRPC"),
                shared("AgentAPI"),
            ]),
        tests("GuestSystemTests", ["GuestSystem", shared("LinuxSystem")]),
    ]
)
