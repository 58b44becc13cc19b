import CLinux
import Glibc
import LinuxSystem

extension ServerState {
    /// "MRTLFILE", little-endian.
    private static let magic: UInt64 = 0x454c_4946_4c54_524d
    /// Changes with every change of what a section has.
    private static let version: UInt32 = 1
    /// Most shares, and numbers of shares that there ever were.
    private static let (maximumShares, maximumID) = (1 << 16, Int32(1 << 30))

    private typealias Reader = StateReader<FileStateError>

    private enum Section: UInt32 {
        case session = 1
        case shares, nodes, handles
    }

    func encoded() -> [UInt8] {
        var file = StateWriter()
        file.add(Self.magic)
        file.add(Self.version)
        file.add(section: Section.session) { section in
            section.add(session.submounts)
            section.add(session.setxattrExtended)
            section.add(bytes: Array(session.home.utf8))
            section.add(session.nextID)
        }
        file.add(section: Section.shares) { section in
            section.add(each: fileSystems) { section, fileSystem in
                section.add(fileSystem.id)
                section.add(bytes: Array(fileSystem.name.utf8))
                section.add(UInt32(fileSystem.slot))
            }
            section.add(each: shares) { section, share in
                section.add(share.id)
                section.add(bytes: Array(share.name.utf8))
                section.add(share.fileSystem)
                section.add(UInt32(share.slot))
            }
        }
        file.add(section: Section.nodes) { section in
            section.add(each: nodes) { $1.encode(to: &$0) }
        }
        file.add(section: Section.handles) { section in
            section.add(each: handles) { section, handle in
                section.add(handle.generation)
                section.add(UInt32(handle.node))
                if handle.node != 0 { section.add(handle.flags) }
            }
        }
        return file.bytes
    }

    /// - Parameters:
    ///   - maximumNodes: most slots of nodes.
    ///   - maximumHandles: most slots of handles.
    /// - Throws: the section and the field that are wrong.
    init(_ bytes: [UInt8], maximumNodes: Int, maximumHandles: Int) throws(FileStateError) {
        var file = Reader("file server state", bytes[...])
        guard try file.number("magic") == Self.magic else { throw file.error("not the state of a file server") }
        let version: UInt32 = try file.number("version")
        guard version == Self.version else { throw file.error("version \(version), not \(Self.version)") }
        var section = try file.section(Section.session)
        session = try Session(
            submounts: section.flag("submounts"), setxattrExtended: section.flag("extended SETXATTR"),
            home: Self.text("home", &section), nextID: section.number("next number"))
        guard (1...Self.maximumID).contains(session.nextID) else {
            throw section.error("next number is \(session.nextID)")
        }
        try section.finish()
        section = try file.section(Section.shares)
        fileSystems = try section.each("file systems", atMost: Self.maximumShares) { section throws(FileStateError) in
            FileSystem(
                id: try section.number("file system"), name: try Self.text("name", &section),
                slot: try Self.slot("directory", &section))
        }
        shares = try section.each("shares", atMost: Self.maximumShares) { section throws(FileStateError) in
            Share(
                id: try section.number("share"), name: try Self.text("name", &section),
                fileSystem: try section.number("file system"), slot: try Self.slot("root", &section))
        }
        let sharesError = section.error
        try section.finish()
        section = try file.section(Section.nodes)
        nodes = try section.each("nodes", atMost: maximumNodes) { section throws(FileStateError) in
            try Node(&section)
        }
        let nodesError = section.error
        try section.finish()
        section = try file.section(Section.handles)
        handles = try section.each("handles", atMost: maximumHandles) { section throws(FileStateError) in
            var handle = Handle(generation: try section.number("generation"), node: try Self.slot("node", &section))
            if handle.node != 0 { handle.flags = try section.number("flags") }
            return handle
        }
        let handlesError = section.error
        try section.finish()
        try file.finish()
        if let reason = objectionToShares { throw sharesError(reason) }
        if let reason = objectionToNodes { throw nodesError(reason) }
        if let reason = objectionToHandles { throw handlesError(reason) }
    }

    private static func text(_ field: String, _ section: inout Reader) throws(FileStateError) -> String {
        guard let text = String(validating: try section.bytes(field), as: UTF8.self) else {
            throw section.error("\(field) is not UTF-8")
        }
        return text
    }

    fileprivate static func slot(
        _ field: String, _ section: inout StateReader<FileStateError>
    ) throws(FileStateError) -> Int {
        Int(try section.number(field, UInt32.self))
    }

    // MARK: What must fit together

    private var objectionToShares: String? {
        for ids in [fileSystems.map(\.id), shares.map(\.id)] {
            guard ids.allSatisfy({ (1..<session.nextID).contains($0) }), zip(ids, ids.dropFirst()).allSatisfy(<) else {
                return "numbers \(ids) are not in order below \(session.nextID)"
            }
        }
        guard Set(fileSystems.map(\.id)).isDisjoint(with: shares.map(\.id)) else {
            return "a number stands there twice"
        }
        guard Set(fileSystems.map(\.slot)).count == fileSystems.count else { return "a directory stands there twice" }
        guard Set(fileSystems.map(\.name)).count == fileSystems.count,
            Set(shares.map(\.fileSystem)) == Set(fileSystems.map(\.id))
        else { return "the file systems are not those of the shares" }
        for fileSystem in fileSystems where node(fileSystem.slot)?.kind != .synthetic {
            return "file system \(fileSystem.id): node \(fileSystem.slot) is not its directory"
        }
        var owners: [Int: Int32] = [:]
        for share in shares {
            guard node(share.slot)?.kind == .file else { return "share \(share.id): node \(share.slot) is no file" }
            guard owners.updateValue(share.fileSystem, forKey: share.slot) ?? share.fileSystem == share.fileSystem
            else { return "node \(share.slot) is in two file systems" }
        }
        return nil
    }

    private var objectionToNodes: String? {
        let directories = nodes.count { $0.kind == .synthetic }
        guard directories == fileSystems.count else {
            return "\(directories) directories of \(fileSystems.count) file systems"
        }
        let roots = Set(shares.map(\.slot))
        for (slot, node) in zip(Self.firstSlot..., nodes) {
            if node.generation == 0 { return "node \(slot): generation 0" }
            guard node.kind == .file else { continue }
            if node.parent == 0 {
                guard roots.contains(slot) else { return "node \(slot) is nowhere" }
                continue
            }
            guard let parent = self.node(node.parent), parent.kind == .file, parent.type == S_IFDIR else {
                return "node \(slot): \(node.parent) is no directory"
            }
            guard node.hasEntryName else { return "node \(slot): its name is none" }
        }
        return circle.map { "node \($0) is in itself" }
    }

    /// A node that its way up leads back to; nil where there is none.
    private var circle: Int? {
        var isChecked = [Bool](repeating: false, count: nodes.count + Self.firstSlot)
        for (slot, node) in zip(Self.firstSlot..., nodes) where node.kind == .file && !isChecked[slot] {
            var path: [Int] = []
            var step = slot
            while step != 0, !isChecked[step] {
                // Longer than there are nodes: it has come by some node twice.
                if path.count > nodes.count { return slot }
                path.append(step)
                step = self.node(step)?.parent ?? 0
            }
            for step in path { isChecked[step] = true }
        }
        return nil
    }

    private var objectionToHandles: String? {
        for (slot, handle) in handles.enumerated() {
            if handle.generation == 0 { return "handle \(slot): generation 0" }
            if handle.node == 0 { continue }
            guard let node = node(handle.node), node.kind == .file, node.type == S_IFDIR || node.type == S_IFREG else {
                return "handle \(slot): node \(handle.node) can't be open"
            }
            let allowed = node.type == S_IFDIR ? 0 : FileServer.passed & ~O_TRUNC
            guard handle.flags & ~allowed == 0, handle.flags & O_ACCMODE != O_ACCMODE else {
                return "handle \(slot): flags \(handle.flags)"
            }
        }
        return nil
    }
}

extension ServerState.Node {
    func encode(to section: inout StateWriter) {
        section.add(generation)
        section.add(kind.rawValue)
        if kind == .free { return }
        section.add(lookups)
        guard kind == .file else { return }
        section.add(UInt8(type >> 12))
        section.add(UInt32(parent))
        if parent != 0 { section.add(bytes: name) }
    }

    init(_ section: inout StateReader<FileStateError>) throws(FileStateError) {
        generation = try section.number("generation")
        let number: UInt8 = try section.number("kind")
        guard let kind = Kind(rawValue: number) else { throw section.error("kind \(number) is unknown") }
        self.kind = kind
        if kind == .free { return }
        lookups = try section.number("lookups")
        guard kind == .file else { return }
        let type: UInt8 = try section.number("type")
        self.type = UInt32(type) << 12
        guard [S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK].contains(self.type) else {
            throw section.error("type \(type) is unknown")
        }
        parent = try ServerState.slot("parent", &section)
        if parent != 0 { name = try section.bytes("name") }
    }

    /// Whether the name can be an entry's.
    fileprivate var hasEntryName: Bool {
        if name.count > FuseLimits.nameLength || name.contains(0) { return false }
        return (name + [0]).withUnsafeBytes { bytes in
            bytes.baseAddress.map { isEntryName($0.assumingMemoryBound(to: CChar.self)) } ?? false
        }
    }
}
