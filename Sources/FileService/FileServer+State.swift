import CLinux
import Glibc
import LinuxSystem

/// Saving what the guest knows, and finding it again by name: of a guest that is paused and goes on with another server.
extension FileServer {
    /// A state has no more bytes than this.
    public static let maximumStateSize = 64 << 20

    // MARK: Saving

    /// What the guest knows: numbers of nodes and handles, and the names by which their files are found. To be called while no
    /// request is served.
    ///
    /// What the guest has looked up and is not there any more gets ESTALE after `restore`.
    ///
    /// - Returns: the state, at most `maximumStateSize` bytes.
    /// - Throws: the path of a file that is open but has been deleted or moved by the host: it can't be found again.
    public func save() throws(FileStateError) -> [UInt8] {
        let bytes = try locked { () throws(FileStateError) in try state().encoded() }
        guard bytes.count <= Self.maximumStateSize else {
            throw FileStateError("file server state: \(bytes.count) bytes, more than \(Self.maximumStateSize)")
        }
        return bytes
    }

    private func state() throws(FileStateError) -> ServerState {
        let isThere = try survey { nodes.slots[$0].identity == $1.identity }
        let slots = handles.slots
        for case let file? in slots.map(\.file) where !isThere[file.slot] && !nodes.slots[file.slot].isShareRoot {
            throw gone(file)
        }
        return ServerState(
            session: .init(
                submounts: submounts, setxattrExtended: setxattrExtended, home: home ?? "", nextID: nextID),
            fileSystems: fileSystems.map { .init(id: $0.id, name: $0.name, slot: $0.slot) },
            shares: shares.map { .init(id: $0.id, name: $0.name, fileSystem: $0.fileSystem, slot: $0.slot) },
            nodes: nodes.slots.indices.dropFirst(ServerState.firstSlot).map { savedNode($0, isThere: isThere[$0]) },
            handles: slots.map {
                .init(generation: $0.generation, node: $0.file?.slot ?? 0, flags: $0.file?.flags ?? 0)
            })
    }

    private func savedNode(_ slot: Int, isThere: Bool) -> ServerState.Node {
        let node = nodes.slots[slot]
        var saved = ServerState.Node(generation: node.generation, kind: .free)
        guard node.inUse else { return saved }
        saved.lookups = node.lookups
        if node.isStale || !node.isSynthetic && !isThere && !node.isShareRoot {
            saved.kind = .stale
        } else if node.isSynthetic {
            saved.kind = .synthetic
        } else {
            saved.kind = .file
            saved.type = node.identity.type
            guard isThere, let name = node.name else { return saved }
            saved.parent = node.parent
            saved.name = UnsafeRawBufferPointer(start: name, count: strlen(name)).map { $0 }
        }
        return saved
    }

    /// The refusal of an open file that is not where its node says.
    private func gone(_ file: OpenFile) -> FileStateError {
        let links = (try? FileStatus(of: file.descriptor))?.raw.stx_nlink
        let reason = links == 0 ? "has been deleted" : "has lost its name"
        if nodes.slots[file.slot].parent != 0 { return FileStateError("\(path(file.slot)) is open but \(reason)") }
        // The name that the host's kernel remembers.
        let count = answer.withMemoryRebound(to: CChar.self) { target in
            target.baseAddress.map { readlinkat(proc.raw, procPath(file.descriptor), $0, Int(PATH_MAX)) } ?? 0
        }
        var path = String(decoding: answer.prefix(max(0, count)), as: UTF8.self)
        if path.hasSuffix(" (deleted)") { path.removeLast(10) }
        let share = share(file.shares.nearest).map { name(of: $0) } ?? ""
        return FileStateError("\(share)\(printable(path, limit: Self.longestPath)) is open but \(reason)")
    }

    // MARK: Restoring

    /// Makes the server know what another one knew when `state` was saved: its numbers of nodes and handles are this one's from
    /// here on. To be called before the first request, after the same shares were added under the same names; their files may
    /// have other devices and inode numbers.
    ///
    /// Each file is found by its name, and has to be of the same type. What is not found gets ESTALE.
    ///
    /// - Throws: the section and the field of a state that is wrong, or the path of a file that is open and was not found or
    ///   can't be opened as it was. The server has no shares then, and is of no more use; one that has served requests
    ///   already goes on.
    public func restore(_ state: [UInt8]) throws(FileStateError) {
        try locked { () throws(FileStateError) in
            guard handles.slots.isEmpty, nodes.slots.allSatisfy({ $0.lookups == 0 && $0.parent == 0 }) else {
                throw FileStateError("file server state: the server has served requests already")
            }
            do throws(FileStateError) { try restoreAll(state) } catch {
                discard()
                throw error
            }
        }
    }

    private func restoreAll(_ bytes: [UInt8]) throws(FileStateError) {
        // The root's slot counts as a node.
        let state = try ServerState(bytes, maximumNodes: nodes.capacity - 1, maximumHandles: handles.capacity)
        let sharesNow = try matchShares(state)
        nodes.clear(state.nodes.map(\.generation))
        try fill(state)
        try place(sharesNow, state)
        try find(state)
        try reopen(state)
        for slot in nodes.slots.indices.reversed() where nodes.slots[slot].inUse { nodes.release(slot) }
        nodes.collectFree()
        submounts = state.session.submounts
        setxattrExtended = state.session.setxattrExtended
    }

    /// The server's shares in the order of the state's, with the state's numbers.
    private func matchShares(_ state: ServerState) throws(FileStateError) -> [Share] {
        let names = Dictionary(uniqueKeysWithValues: state.fileSystems.map { ($0.id, $0.name) })
        var left = Dictionary(uniqueKeysWithValues: shares.map { (name(of: $0), $0) })
        var matched: [Share] = []
        for saved in state.shares {
            let name = "\(names[saved.fileSystem] ?? "")/\(saved.name)"
            guard var share = left.removeValue(forKey: name) else {
                throw FileStateError("file server state: there is no share \(printable(name))")
            }
            (share.id, share.fileSystem, share.slot) = (saved.id, saved.fileSystem, saved.slot)
            matched.append(share)
        }
        if let name = left.keys.min() { throw FileStateError("file server state: it has no share \(printable(name))") }
        return matched
    }

    /// Makes the nodes, none of which is known to be a file yet.
    private func fill(_ state: ServerState) throws(FileStateError) {
        do throws(FileError) {
            for (slot, node) in zip(ServerState.firstSlot..., state.nodes) where node.kind != .free {
                try nodes.occupy(slot, lookups: node.lookups)
                nodes.slots[slot].isStale = node.kind == .stale
                nodes.slots[slot].isSynthetic = node.kind == .synthetic
                nodes.slots[slot].identity.type = node.kind == .synthetic ? S_IFDIR : node.type
            }
            for (slot, node) in zip(ServerState.firstSlot..., state.nodes) where node.parent != 0 {
                try nodes.locate(slot, parent: node.parent, name: node.name)
            }
        } catch {
            throw FileStateError("file server state: no memory for \(state.nodes.count) nodes")
        }
        // Held until all are found.
        for handle in state.handles where handle.node != 0 { nodes.slots[handle.node].handles += 1 }
    }

    /// Gives the nodes of file systems and shares what they stand for.
    private func place(_ sharesNow: [Share], _ state: ServerState) throws(FileStateError) {
        let devices = Dictionary(uniqueKeysWithValues: fileSystems.map { ($0.name, $0.device) })
        home = state.session.home.isEmpty ? nil : state.session.home
        shares = sharesNow
        nextID = state.session.nextID
        fileSystems = state.fileSystems.map { saved in
            FileSystem(
                id: saved.id, name: saved.name, slot: saved.slot, device: devices[saved.name] ?? 0,
                isHome: saved.name == home)
        }
        for fileSystem in fileSystems { nodes.slots[fileSystem.slot].fileSystem = fileSystem.id }
        for share in shares {
            let identity: FileIdentity
            do throws(FileError) { identity = try FileStatus(of: share.descriptor).identity } catch {
                throw FileStateError("\(printable(name(of: share))): \(error.reason)")
            }
            let node = nodes.slots[share.slot]
            guard identity.type == node.identity.type else {
                throw FileStateError("\(printable(name(of: share))) is of another type than it was")
            }
            guard !node.isShareRoot || node.identity == identity else {
                throw FileStateError("\(printable(name(of: share))) and another share were one file, and are two")
            }
            if !node.isShareRoot { identify(share.slot, share.fileSystem, identity) }
            setRoot(share.slot)
        }
    }

    private func identify(_ slot: Int, _ fileSystem: Int32, _ identity: FileIdentity) {
        nodes.identify(slot, fileSystem, identity, isForeign: isForeign(fileSystem, identity))
    }

    /// Finds the files of all nodes by their names; what is not found is stale from here on.
    private func find(_ state: ServerState) throws(FileStateError) {
        let isThere = try survey { slot, status in
            let node = nodes.slots[slot]
            let fileSystem = nodes.slots[node.parent].fileSystem
            guard !node.isShareRoot else { return node.fileSystem == fileSystem && node.identity == status.identity }
            guard node.identity.type == status.type else { return false }
            identify(slot, fileSystem, status.identity)
            return true
        }
        let lost = nodes.slots.indices.filter { nodes.slots[$0].inUse && nodes.slots[$0].parent != 0 && !isThere[$0] }
        for slot in lost where nodes.slots[slot].handles > 0 && !nodes.slots[slot].isShareRoot {
            throw FileStateError("\(path(slot)) was open and is not there any more")
        }
        for slot in lost {
            nodes.dislocate(slot)
            if !nodes.slots[slot].isShareRoot { nodes.invalidate(slot) }
        }
    }

    /// Opens what the guest has open.
    private func reopen(_ state: ServerState) throws(FileStateError) {
        var slots: [(generation: UInt32, file: OpenFile?)] = []
        for (number, handle) in state.handles.enumerated() {
            guard handle.node != 0 else {
                slots.append((handle.generation, nil))
                continue
            }
            nodes.request &+= 1
            do throws(FileError) {
                let isDirectory = nodes.slots[handle.node].isDirectory
                let raw = try openForIO(handle.node, handle.flags | (isDirectory ? O_DIRECTORY : 0))
                slots.append((handle.generation, try openFile(handle.node, raw, handle.flags)))
            } catch {
                throw FileStateError("\(path(handle.node)) was open and can't be opened again: \(error.reason)")
            }
            nodes.slots[handle.node].lastHandle = UInt64(handle.generation) << 32 | UInt64(number)
        }
        handles = HandleTable(capacity: handles.capacity, slots: slots)
    }

    /// Ends all that there is: the guest reaches nothing.
    private func discard() {
        handles = HandleTable(capacity: handles.capacity)
        nodes.clear()
        for share in shares { close(share.descriptor) }
        (shares, fileSystems) = ([], [])
    }

    // MARK: Finding files by name

    /// Looks at each node with a location by its name, directories before what is in them. Nothing is followed.
    ///
    /// - Parameter isRight: whether the file with this status, found by a node's name, is the node's.
    /// - Returns: for each slot whether its location leads to its file.
    /// - Throws: the path of what could not be looked at.
    private func survey(
        _ isRight: (_ slot: Int, _ status: FileStatus) -> Bool
    ) throws(FileStateError) -> [Bool] {
        // What is in each directory: the first, and to each the next.
        var (first, next) = (
            [Int](repeating: 0, count: nodes.slots.count), [Int](repeating: 0, count: nodes.slots.count)
        )
        for slot in nodes.slots.indices.reversed() where nodes.slots[slot].parent != 0 && !nodes.slots[slot].isStale {
            next[slot] = first[nodes.slots[slot].parent]
            first[nodes.slots[slot].parent] = slot
        }
        var isThere = [Bool](repeating: false, count: nodes.slots.count)
        var pending = nodes.slots.indices.filter { nodes.slots[$0].isShareRoot && first[$0] != 0 }
        while let directory = pending.popLast() {
            nodes.request &+= 1
            guard let opened = try unlessMissing(directory, { () throws(FileError) in try descriptor(directory) })
            else { continue }
            var slot = first[directory]
            while slot != 0 {
                let status = try unlessMissing(slot) { () throws(FileError) in
                    guard let name = nodes.slots[slot].name else { throw .missing }
                    return try FileStatus(opened, name)
                }
                if let status, isRight(slot, status) {
                    isThere[slot] = true
                    if first[slot] != 0, !nodes.slots[slot].isShareRoot { pending.append(slot) }
                }
                slot = next[slot]
            }
        }
        return isThere
    }

    /// What `body` answers; nil where there is no such file.
    private func unlessMissing<R>(
        _ slot: Int, _ body: () throws(FileError) -> R
    ) throws(FileStateError) -> R? {
        do throws(FileError) { return try body() } catch {
            if [ENOENT, ENOTDIR, ESTALE, ENAMETOOLONG].contains(error.code) { return nil }
            throw FileStateError("\(path(slot)): \(error.reason)")
        }
    }

    /// Most bytes of a path in an error.
    private static let longestPath = 1000

    /// The path of a node in its share, behind the share's name, for errors.
    private func path(_ slot: Int) -> String {
        var parts: [String] = []
        var (length, step) = (0, slot)
        while true {
            let node = nodes.slots[step]
            if let share = share(node.rootShare) {
                parts.append(name(of: share))
                break
            }
            guard node.parent != 0, let name = node.name, length < Self.longestPath else {
                parts.append("…")
                break
            }
            parts.append(String(cString: name))
            length += strlen(name) + 1
            step = node.parent
        }
        return printable(parts.reversed().joined(separator: "/"), limit: 2 * Self.longestPath)
    }
}

extension FileError {
    /// What errno.h says of it.
    fileprivate var reason: String { strerror(code).map { String(cString: $0) } ?? "error \(code)" }
}
