import FoundationEssentials
import Glibc
public import Hypervisor
import LinuxSystem
import OCISpec

/// The templates of this host: a directory for each, with `shape.json`, `state` and `memory`.
///
/// A template is written in a directory whose name begins with a dot, and renamed when it is whole and has been tried. It is never
/// changed after that.
public struct TemplateStore: Sendable {
    /// A template in the store.
    public struct Entry: Sendable, Encodable {
        public var name: String
        public var shape: TemplateShape
        /// What it takes of the file system.
        public var bytes: Int64
        /// Seconds since the epoch.
        public var created: Int64
        public var lastUsed: Int64
    }

    /// Absolute path.
    public let directory: String
    private static let unfinishedPrefix = ".new-"

    public init(directory: String) { self.directory = directory }

    // MARK: Use

    /// The template that a pod's machine starts from, and its shape.
    ///
    /// - Parameter isExact: of the machine's size; else the machine may begin smaller and grow.
    /// - Returns: nil: it boots.
    static func template(
        for machine: VMConfiguration, _ driver: DriverChoice, _ settings: Configuration.Template, isExact: Bool
    ) throws -> (template: MachineTemplate, shape: TemplateShape)? {
        guard settings.mode != .off, driver.isBuiltIn,
            let shape = try TemplateShape(machine, tenant: settings.tenant)
        else { return nil }
        let store = TemplateStore(directory: settings.directory)
        if let template = store.find(shape) { return (template, shape) }
        guard !isExact, let smaller = store.largestShape(growingTo: shape), let template = store.find(smaller) else {
            return nil
        }
        return (template, smaller)
    }

    /// Of the templates of smaller machines that can grow to one of a shape, the largest one's.
    private func largestShape(growingTo shape: TemplateShape) -> TemplateShape? {
        names().compactMap { try? readShape($0) }.filter { $0.canGrow(to: shape) }
            .max { ($0.memoryMiB, $0.vcpus) < ($1.memoryMiB, $1.vcpus) }
    }

    /// The template of a shape.
    ///
    /// - Returns: nil where there is none.
    func find(_ shape: TemplateShape) -> MachineTemplate? {
        let template = path(of: shape.name)
        guard (try? readShape(shape.name)) == shape else { return nil }
        // Those that are used stay when room is made. A store that can't be written to is used all the same.
        _ = utimensat(AT_FDCWD, "\(template)/shape.json", nil, 0)
        return MachineTemplate(directory: template)
    }

    /// All templates, the one that was used last first. What can't be read is left out.
    public func list() -> [Entry] {
        names().compactMap { name in
            guard let shape = try? readShape(name), let used = facts("\(path(of: name))/shape.json"),
                let memory = facts(template(name).memory)
            else { return nil }
            return Entry(
                name: name, shape: shape, bytes: Int64(memory.st_blocks) * 512, created: Int64(memory.st_mtim.tv_sec),
                lastUsed: Int64(used.st_mtim.tv_sec))
        }.sorted { $0.lastUsed > $1.lastUsed }
    }

    /// A template by its name.
    ///
    /// - Throws: `SandboxError.notFound`.
    public func template(named name: String) throws -> (template: MachineTemplate, shape: TemplateShape) {
        guard names().contains(name) else { throw SandboxError.notFound("template \(name) in \(directory)") }
        return (template(name), try readShape(name))
    }

    /// Removes a template. Pods that start from it now are not disturbed.
    ///
    /// - Throws: `SandboxError.notFound`; `SystemError` where it can't be removed.
    public func remove(_ name: String) throws {
        guard names().contains(name) else { throw SandboxError.notFound("template \(name) in \(directory)") }
        // Nobody finds a half of it.
        let gone = "\(directory)/\(Self.unfinishedPrefix)gone-\(name)-\(getpid())"
        try check("rename", path(of: name), rename(path(of: name), gone))
        try FileManager.default.removeItem(atPath: gone)
    }

    // MARK: Making

    /// Makes a template.
    ///
    /// - Parameters:
    ///   - limit: bytes that all templates may take; those that were used least recently make room.
    ///   - isPatient: wait while another template is made.
    ///   - body: writes and tries it; `shape.json` is there already.
    /// - Throws: what `body` throws. Nothing is left of the template then.
    func make(
        _ shape: TemplateShape, limit: Int64, isPatient: Bool = true, _ body: (MachineTemplate) async throws -> Void
    ) async throws -> Entry {
        try makeDirectories(directory, mode: 0o700)
        // One at a time: it takes a machine's memory.
        let turn = try OwnedDescriptor.open(directory, O_RDONLY | O_DIRECTORY)
        _ = try retrying("flock", directory) { flock(turn.raw, LOCK_EX | (isPatient ? 0 : LOCK_NB)) }
        removeUnfinished()
        let unfinished = "\(directory)/\(Self.unfinishedPrefix)\(shape.name)-\(getpid())"
        try check("mkdir", unfinished, mkdir(unfinished, 0o700))
        do {
            let lock = try OwnedDescriptor.open(unfinished, O_RDONLY | O_DIRECTORY)
            try check("flock", unfinished, flock(lock.raw, LOCK_EX | LOCK_NB))
            try Data(JSON.encode(shape)).write(to: URL(filePath: "\(unfinished)/shape.json"))
            try await body(MachineTemplate(directory: unfinished))
            if names().contains(shape.name) { try remove(shape.name) }
            try check("rename", unfinished, rename(unfinished, path(of: shape.name)))
        } catch {
            try? FileManager.default.removeItem(atPath: unfinished)
            throw error
        }
        makeRoom(limit: limit, keeping: shape.name)
        guard let entry = list().first(where: { $0.name == shape.name }) else {
            throw SandboxError.failed("template \(shape.name): it is not in \(directory) any more")
        }
        return entry
    }

    /// The directories that makers have left which were killed.
    func abandoned() -> [String] {
        entries().filter { name in
            guard name.hasPrefix(Self.unfinishedPrefix),
                let lock = try? OwnedDescriptor.open("\(directory)/\(name)", O_RDONLY | O_DIRECTORY)
            else { return false }
            return flock(lock.raw, LOCK_EX | LOCK_NB) == 0
        }
    }

    private func removeUnfinished() {
        for name in abandoned() { try? FileManager.default.removeItem(atPath: "\(directory)/\(name)") }
    }

    private func makeRoom(limit: Int64, keeping kept: String) {
        var total: Int64 = 0
        for entry in list() {
            total += entry.bytes
            if total > limit, entry.name != kept { try? remove(entry.name) }
        }
    }

    // MARK: Files

    func path(of name: String) -> String { "\(directory)/\(name)" }

    private func template(_ name: String) -> MachineTemplate { MachineTemplate(directory: path(of: name)) }

    private func entries() -> [String] { (try? directoryNames(directory)) ?? [] }

    /// The names of all templates, of those that can't be read too.
    public func names() -> [String] { entries().filter { !$0.hasPrefix(".") } }

    func readShape(_ name: String) throws -> TemplateShape {
        let path = "\(path(of: name))/shape.json"
        return try JSON.decode(TemplateShape.self, from: Array(try readText(path).utf8), file: path)
    }

    private func facts(_ path: String) -> stat? {
        var facts = stat()
        return stat(path, &facts) == 0 ? facts : nil
    }
}
