/// The whole of a bundle's config.json: runtime-spec 1.2, config.md. Properties that the specification does not know
/// are ignored, as it requires (config.md, Extensibility).
public struct Spec: Codable, Sendable, Equatable {
    public var ociVersion: String
    /// The container's process. The specification allows its absence, which Martlet refuses.
    public var process: Process?
    public var root: Root?
    /// The host name in the container's UTS namespace; empty: the sandbox's.
    @OrEmpty public var hostname: String = ""
    @OrEmpty public var domainname: String = ""
    /// In mount order.
    @OrEmpty public var mounts: [Mount] = []
    public var hooks: Hooks?
    @OrEmpty public var annotations: [String: String] = [:]
    public var linux: Linux?
    // Properties of other platforms, decoded so that they can be refused by name.
    public var solaris: Opaque?
    public var windows: Opaque?
    public var vm: Opaque?
    public var zos: Opaque?

    public init(
        ociVersion: String = "1.2.0", process: Process? = nil, root: Root? = nil, hostname: String = "",
        mounts: [Mount] = [], annotations: [String: String] = [:], linux: Linux? = nil
    ) {
        self.ociVersion = ociVersion
        self.process = process
        self.root = root
        self.hostname = hostname
        self.mounts = mounts
        self.annotations = annotations
        self.linux = linux
    }
}

/// An object whose contents are ignored: only its presence matters.
public struct Opaque: Codable, Sendable, Equatable {
    public init() {}
    public init(from decoder: any Decoder) throws {}
    public func encode(to encoder: any Encoder) throws {
        _ = encoder.container(keyedBy: NoKeys.self)
    }

    private enum NoKeys: CodingKey {}
}

/// The container's root file system (config.md, Root).
public struct Root: Codable, Sendable, Equatable {
    /// Absolute, or relative to the bundle.
    public var path: String
    @OrEmpty public var readonly: Bool = false

    public init(path: String, readonly: Bool = false) {
        self.path = path
        self.readonly = readonly
    }
}

/// One mount (config.md, Mounts).
public struct Mount: Codable, Sendable, Equatable {
    /// Absolute path in the container.
    public var destination: String
    /// File system type; `bind` or empty with the option `bind` or `rbind` for a bind mount.
    @OrEmpty public var type: String = ""
    /// A device, a name, or for bind mounts a path, absolute or relative to the bundle.
    @OrEmpty public var source: String = ""
    @OrEmpty public var options: [String] = []
    @OrEmpty public var uidMappings: [Linux.IDMapping] = []
    @OrEmpty public var gidMappings: [Linux.IDMapping] = []

    public init(destination: String, type: String = "", source: String = "", options: [String] = []) {
        self.destination = destination
        self.type = type
        self.source = source
        self.options = options
    }

    /// A mount of a file or directory of the host.
    public var isBind: Bool { type == "bind" || options.contains("bind") || options.contains("rbind") }
}

/// Programs that run at points of a container's life cycle (config.md, POSIX-platform Hooks).
public struct Hooks: Codable, Sendable, Equatable {
    @OrEmpty public var prestart: [Hook] = []
    @OrEmpty public var createRuntime: [Hook] = []
    @OrEmpty public var createContainer: [Hook] = []
    @OrEmpty public var startContainer: [Hook] = []
    @OrEmpty public var poststart: [Hook] = []
    @OrEmpty public var poststop: [Hook] = []

    public init() {}
}

/// One program of `Hooks`.
public struct Hook: Codable, Sendable, Equatable {
    /// Absolute.
    public var path: String
    /// With argv[0].
    @OrEmpty public var args: [String] = []
    @OrEmpty public var env: [String] = []
    /// Seconds.
    public var timeout: Int?

    public init(path: String, args: [String] = [], env: [String] = [], timeout: Int? = nil) {
        self.path = path
        self.args = args
        self.env = env
        self.timeout = timeout
    }

    /// How its failure begins: runc's words, and the program.
    ///
    /// - Parameters:
    ///   - point: `createRuntime`.
    ///   - index: its place among the hooks of that point.
    /// - Returns: `error running createRuntime hook #0: /bin/false`.
    public func failure(at point: String, _ index: Int) -> String { "error running \(point) hook #\(index): \(path)" }
}

/// The state that a hook reads from its standard input (runtime.md, "State").
public struct HookState: Codable, Sendable, Equatable {
    public var ociVersion = ""
    public var id = ""
    /// `creating`, `created`, `running` or `stopped`.
    public var status = ""
    public var pid: Int32 = 0
    public var bundle = ""
    public var annotations: [String: String] = [:]

    public init() {}

    /// The state of a container with the configuration `spec`.
    public init(_ spec: Spec, id: String, bundle: String) {
        ociVersion = spec.ociVersion
        self.id = id
        self.bundle = bundle
        annotations = spec.annotations
    }
}
