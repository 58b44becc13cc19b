// swift-tools-version: 6.2
import PackageDescription

/// The settings of all targets: Swift 6 language mode, and warnings are errors.
let strict: [SwiftSetting] = [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]

func shared(_ product: String) -> Target.Dependency { .product(name: product, package: "martlet") }

func program(_ name: String, _ modules: [String], _ others: [Target.Dependency] = []) -> Target {
    .executableTarget(
        name: name, dependencies: ["FuzzSupport"] + modules.map(shared) + others, swiftSettings: strict)
}

// A package of its own, so that nothing of the main one is built with sanitizers: see docs/fuzzing.md.
let package = Package(
    name: "martlet-fuzz",
    dependencies: [
        // By name: the directory of a checkout may be called anything.
        .package(name: "martlet", path: "../.."),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
    ],
    targets: [
        .target(name: "FuzzSupport", swiftSettings: strict),
        // What a guest reaches in the VMM and the device processes. Few modules, so that an execution is short.
        program(
            "FuzzDevices",
            [
                "Archive", "CLinux", "LinuxSystem", "Virtio", "FileService", "VhostUser", "VMMControl", "GuestKernel",
                "Machine",
            ]),
        // What the server reads: requests, replies of the agent, bundles, configuration.
        program(
            "FuzzServer",
            [
                "AgentContract", "LinuxSystem", "OCISpec", "TTRPC", "TaskAPI", "AgentAPI", "Sandbox", "PodService",
            ],
            [.product(name: "NIOEmbedded", package: "swift-nio"), .product(name: "NIOCore", package: "swift-nio")]),
    ]
)
