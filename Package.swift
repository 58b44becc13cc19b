// swift-tools-version: 6.2
import PackageDescription

/// The settings of all targets: Swift 6 language mode, and warnings are errors.
let strict: [SwiftSetting] = [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]

let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let system = Target.Dependency.product(name: "SystemPackage", package: "swift-system")
let protobuf = Target.Dependency.product(name: "SwiftProtobuf", package: "swift-protobuf")
let metrics = Target.Dependency.product(name: "CoreMetrics", package: "swift-metrics")
let tracing = Target.Dependency.product(name: "Tracing", package: "swift-distributed-tracing")
let http1 = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let http2 = [
    Target.Dependency.product(name: "NIOHPACK", package: "swift-nio-http2"),
    Target.Dependency.product(name: "NIOHTTP2", package: "swift-nio-http2"),
]
let nio = [
    Target.Dependency.product(name: "NIOCore", package: "swift-nio"),
    Target.Dependency.product(name: "NIOPosix", package: "swift-nio"),
]

func room(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(
        name: name, dependencies: dependencies,
        exclude: name.hasSuffix("API") || name == "TTRPC" ? ["protos"] : [],
        swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], exclude: [String] = []) -> Target {
    .testTarget(name: name, dependencies: dependencies, exclude: exclude, swiftSettings: strict)
}

let package = Package(
    name: "martlet",
    products: [
        .executable(name: "martlet", targets: ["martlet"]),
        .executable(name: "containerd-shim-martlet-v2", targets: ["containerd-shim-martlet-v2"]),
        .executable(name: "martlet-device", targets: ["martlet-device"]),
        .executable(name: "martlet-vmm", targets: ["martlet-vmm"]),
        // What the guest agent, a package of its own, builds on.
        .library(name: "AgentContract", targets: ["AgentContract"]),
        // The modules that the guest agent's package uses.
        .library(name: "CLinux", targets: ["CLinux"]),
        .library(name: "LinuxSystem", targets: ["LinuxSystem"]),
        .library(name: "Archive", targets: ["Archive"]),
        .library(name: "OCISpec", targets: ["OCISpec"]),
        .library(name: "TTRPC", targets: ["TTRPC"]),
        .library(name: "AgentAPI", targets: ["AgentAPI"]),
        .library(name: "CSeccomp", targets: ["CSeccomp"]),
        .library(name: "Seccomp", targets: ["Seccomp"]),
        .library(name: "Jail", targets: ["Jail"]),
        // What Tests/Fuzz needs besides.
        .library(name: "Virtio", targets: ["Virtio"]),
        .library(name: "FileService", targets: ["FileService"]),
        .library(name: "VhostUser", targets: ["VhostUser"]),
        .library(name: "VMMControl", targets: ["VMMControl"]),
        .library(name: "GuestKernel", targets: ["GuestKernel"]),
        .library(name: "Machine", targets: ["Machine"]),
        .library(name: "TaskAPI", targets: ["TaskAPI"]),
        .library(name: "Sandbox", targets: ["Sandbox"]),
        .library(name: "PodService", targets: ["PodService"]),
    ],
    traits: [
        .trait(name: "Libvirt", description: "The driver that runs pods as domains of libvirt; needs libvirt-dev.")
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-distributed-tracing", from: "1.7.0"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.0"),
        // The version that the generated code came from (scripts/protos.sh checks it). Without its default traits, one of
        // which needs all of Foundation.
        .package(url: "https://github.com/apple/swift-protobuf", exact: "1.39.0", traits: []),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-nio-http2", from: "1.46.0"),
        .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
    ],
    targets: [
        .target(name: "CLinux"),
        .systemLibrary(name: "CLibvirt"),
        // The archive: the programs run where only their C library is.
        .target(name: "CSeccomp", linkerSettings: [.linkedLibrary(":libseccomp.a")]),
        room("LinuxSystem", ["CLinux", system]),
        room("Archive", ["CLinux", "LinuxSystem"]),
        room("AgentContract", []),
        room("OCISpec", ["AgentContract", "LinuxSystem"]),
        room("TTRPC", ["LinuxSystem", protobuf] + nio),
        room("TaskAPI", ["TTRPC", protobuf]),
        room("AgentAPI", ["TTRPC", protobuf]),
        room("CRIAPI", [protobuf] + http2 + nio),
        room("Virtio", ["CLinux", "LinuxSystem"]),
        room("FileService", ["CLinux", "LinuxSystem"]),
        room("VhostUser", ["CLinux", "Virtio", "LinuxSystem"]),
        room("VMMControl", ["CLinux", "LinuxSystem"]),
        room("GuestKernel", ["LinuxSystem"]),
        room("Seccomp", ["CSeccomp", "LinuxSystem"]),
        room("Jail", ["CLinux", "CSeccomp", "LinuxSystem", "Seccomp"]),
        room("DeviceService", ["LinuxSystem", "Virtio", "VMMControl"]),
        room("Machine", ["CLinux", "LinuxSystem", "GuestKernel", "Virtio", "VhostUser", "VMMControl"]),
        room("PodNetwork", ["LinuxSystem"]),
        room("Telemetry", [metrics]),
        room("Traces", ["LinuxSystem", tracing]),
        room(
            "Hypervisor",
            [
                "AgentContract", "CLinux", "LinuxSystem", "GuestKernel", "Jail", "VMMControl", "Telemetry", logging,
                .target(name: "CLibvirt", condition: .when(traits: ["Libvirt"])),
            ]),
        room(
            "Sandbox",
            [
                "AgentContract", "CLinux", "LinuxSystem", "OCISpec", "TTRPC", "AgentAPI", "VMMControl", "PodNetwork",
                "Hypervisor", "Jail", "Telemetry", "Traces", logging, tracing,
                .product(name: "TOMLKit", package: "TOMLKit"),
            ]),
        room(
            "PodService",
            [
                "AgentContract", "Archive", "CLinux", "LinuxSystem", "OCISpec", "TTRPC", "TaskAPI", "Hypervisor",
                "Sandbox", "Telemetry", "Traces", protobuf, logging, tracing, http1,
            ] + nio),
        room(
            "Shim",
            [
                "AgentContract", "LinuxSystem", "OCISpec", "TTRPC", "TaskAPI", "Hypervisor", "Sandbox", "PodService",
                argumentParser, protobuf, logging,
            ]),
        room("Bench", ["CLinux", "LinuxSystem", "GuestKernel", "CRIAPI", "Hypervisor", "VMMControl", logging]),
        .executableTarget(
            name: "martlet",
            dependencies: [
                "AgentContract", "Jail", "LinuxSystem", "OCISpec", "Hypervisor", "Sandbox", "PodService", "Shim",
                "Telemetry", "Bench", argumentParser, logging,
            ],
            swiftSettings: strict),
        .executableTarget(
            name: "containerd-shim-martlet-v2", dependencies: ["Shim", argumentParser],
            swiftSettings: strict),
        .executableTarget(
            name: "martlet-device",
            dependencies: [
                "CLinux", "LinuxSystem", "Virtio", "FileService", "Jail", "VhostUser", "VMMControl", "DeviceService",
            ],
            swiftSettings: strict),
        .executableTarget(
            name: "martlet-vmm",
            dependencies: [
                "AgentContract", "Jail", "LinuxSystem", "Virtio", "VhostUser", "VMMControl", "DeviceService", "Machine",
            ],
            swiftSettings: strict),

        // Tries to get out of a jail; for JailTests.
        .target(name: "CProbe", path: "Tests/Jail/CProbe"),
        .executableTarget(
            name: "jail-probe", dependencies: ["CProbe", "Jail", "LinuxSystem"], path: "Tests/Jail/Probe",
            swiftSettings: strict),

        tests("JailTests", ["CLinux", "Jail", "LinuxSystem", "jail-probe"]),
        tests("AgentContractTests", ["AgentContract"]),
        tests("LinuxSystemTests", ["LinuxSystem", "CLinux"]),
        tests("ArchiveTests", ["Archive", "CLinux", "LinuxSystem"]),
        tests("OCISpecTests", ["OCISpec"]),
        tests(
            "TTRPCTests", ["CLinux", "LinuxSystem", "TTRPC", "TaskAPI", protobuf, nio[0]],
            exclude: ["Peers", "protos"]),
        tests("VirtioTests", ["Virtio", "CLinux", "LinuxSystem"]),
        tests("FileServiceTests", ["FileService", "CLinux", "LinuxSystem"]),
        tests("VhostUserTests", ["Jail", "VhostUser", "Virtio", "FileService", "VMMControl", "CLinux", "LinuxSystem"]),
        tests("MachineTests", ["Machine", "GuestKernel", "Virtio", "CLinux", "LinuxSystem", "VMMControl"]),
        tests("PodNetworkTests", ["PodNetwork", "LinuxSystem", "CLinux"]),
        tests("TelemetryTests", ["Telemetry", metrics]),
        tests("TracesTests", ["Traces", tracing]),
        tests("HypervisorTests", ["Hypervisor", "CLinux", "GuestKernel", "LinuxSystem", logging]),
        tests(
            "ContainerdShimTests",
            [
                "AgentContract", "Shim", "PodService", "Sandbox", "LinuxSystem", "OCISpec", "TTRPC", "TaskAPI",
                protobuf, logging,
            ]),
        tests(
            "SandboxTests",
            [
                "AgentContract", "Sandbox", "AgentAPI", "Hypervisor", "LinuxSystem", "OCISpec", "CLinux", "PodNetwork",
                "Traces", "VMMControl", logging,
            ]),
        tests("BenchTests", ["Bench", "Hypervisor", logging]),
        tests(
            "EndToEnd", ["CLinux", "LinuxSystem", "OCISpec", "TTRPC", "TaskAPI", protobuf],
            exclude: ["Programs", "Specs"]),
    ]
)
