public import OCISpec

/// Programs that a container's first process runs in the container before its own, and what they are told.
///
/// Source: runtime-spec config.md, "POSIX-platform Hooks"; runtime.md, "State".
public struct HookPlan: Codable, Sendable, Equatable {
    /// When all is set up, as the container's root.
    public var createContainer: [Hook] = []
    /// When the container is started, as its user.
    public var startContainer: [Hook] = []
    public var state = State()

    /// What a hook reads from its stdin, but for the status and the pid.
    public struct State: Codable, Sendable, Equatable {
        public var ociVersion = ""
        public var id = ""
        public var status = ""
        public var pid: Int32 = 0
        public var bundle = ""
        public var annotations: [String: String] = [:]
    }

    /// Seconds that a hook may take which sets no time itself.
    public static let standardTimeout = 30

    init(_ spec: Spec) {
        createContainer = spec.hooks?.createContainer ?? []
        startContainer = spec.hooks?.startContainer ?? []
        state.ociVersion = spec.ociVersion
        state.annotations = spec.annotations
        // The directory in the guest that has all of the container.
        let root = spec.root?.path ?? ""
        state.bundle = root.lastIndex(of: "/").map { String(root[..<$0]) } ?? root
    }
}
