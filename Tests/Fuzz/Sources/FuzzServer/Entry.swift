import FuzzSupport

private let target = ChosenTarget([
    "ttrpc": { try TTRPCTarget() },
    "agent": { AgentTarget() },
    "bundle": { try BundleTarget() },
    "toml": { ConfigurationTarget() },
])

/// What libFuzzer calls for each execution.
@_cdecl("LLVMFuzzerTestOneInput")
public func testOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt { target.run(start, count) }
