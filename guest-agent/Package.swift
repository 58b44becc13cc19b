// swift-tools-version: 6.2
import PackageDescription

/// The settings of all targets: Swift 6 language mode, and warnings are errors.
let strict: [SwiftSetting] = [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]

func shared(_ product: String) -> Target.Dependency { .product(name: product, package: "martlet") }

func room(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

func program(_ name: String, _ more: [Target.Dependency] = []) -> Target {
    .executableTarget(name: name, dependencies: ["AgentServer"] + more, swiftSettings: strict)
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
        room("GuestSystem", ["CAgent", shared("CLinux"), shared("LinuxSystem")]),
        room(
            "ContainerPlan",
            ["GuestSystem", shared("CSeccomp"), shared("Seccomp"), shared("LinuxSystem"), shared("OCISpec")]),
        room(
            "ContainerInit",
            [
                "ContainerPlan", "GuestSystem", "CAgent", shared("Archive"), shared("CLinux"), shared("LinuxSystem"),
                shared("OCISpec"),
            ]),
        room(
            "AgentServer",
            [
                "ContainerInit", "ContainerPlan", "GuestSystem", "CAgent", shared("AgentContract"), shared("CLinux"),
                shared("Jail"), shared("LinuxSystem"),
                shared("OCISpec"), shared("TTRPC"), shared("AgentAPI"),
            ]),
        program("martlet-agent"),
        program(
            "martlet-agent-faulty",
            ["CFault", "GuestSystem", shared("AgentAPI"), shared("LinuxSystem"), shared("OCISpec"), shared("TTRPC")]),
        // Not part of the agent: the first process of a guest that `martlet bench` measures in.
        .executableTarget(
            name: "martlet-bench-guest",
            dependencies: ["GuestSystem", "CAgent", shared("CLinux"), shared("LinuxSystem")],
            swiftSettings: strict),

        tests("ContainerPlanTests", ["ContainerPlan", "GuestSystem", shared("LinuxSystem"), shared("OCISpec")]),
        tests(
            "AgentServerTests",
            [
                "AgentServer", "ContainerPlan", "GuestSystem", "martlet-agent", shared("AgentContract"),
                shared("Archive"), shared("CLinux"), shared("LinuxSystem"),
                shared("OCISpec"), shared("TTRPC"),
                shared("AgentAPI"),
            ]),
        tests("GuestSystemTests", ["GuestSystem"]),
    ]
)
