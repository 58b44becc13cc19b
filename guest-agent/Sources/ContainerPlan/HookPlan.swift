public import OCISpec

/// Programs that a container's first process runs in the container before its own, and the state that they read.
///
/// Source: runtime-spec config.md, "POSIX-platform Hooks"; runtime.md, "State".
public struct HookPlan: Codable, Sendable, Equatable {
    /// When all is set up, as the container's root.
    public var createContainer: [Hook] = []
    /// When the container is started, as its user.
    public var startContainer: [Hook] = []
    /// But for the status and the pid.
    public var state = HookState()

    /// Seconds that a hook may take which sets no time itself.
    public static let standardTimeout = 30

    init(_ spec: Spec) {
        createContainer = spec.hooks?.createContainer ?? []
        startContainer = spec.hooks?.startContainer ?? []
        // The directory in the guest that has all of the container.
        let root = spec.root?.path ?? ""
        state = HookState(
            spec, id: "", bundle: root.lastIndex(of: "/").map { String(root[..<$0]) } ?? root)
    }
}
