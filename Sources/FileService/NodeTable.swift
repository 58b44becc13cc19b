import CLinux
import Glibc

/// A file that the guest knows by number. It remembers *where it was last seen* (parent and name) and may hold an
/// O_PATH descriptor; either is enough to reach it, so that a guest may know many more files than a process may
/// have descriptors.
struct Node {
    /// Of the slot: a number given out for an earlier tenant does not fit.
    var generation: UInt32 = 0
    var inUse = false
    /// The share was removed: every request but FORGET gets ESTALE.
    var dead = false
    /// A share's own entry: its descriptor stays, and so does the node while the share is there.
    var isShareRoot = false
    var share: Int32 = -1
    var identity = FileIdentity(device: 0, inode: 0, mount: 0, type: 0)
    /// The inode number for the guest's eyes, and FUSE_ATTR_* flags.
    var shownInode: UInt64 = 0
    var attributeFlags: UInt32 = 0
    /// How often the guest was told the number and has not forgotten it yet.
    var lookups: UInt64 = 0
    /// Nodes that have this one as their parent; open handles.
    var children = 0
    var handles = 0
    /// The handle opened last; it may be closed by now.
    var lastHandle: UInt64 = 0
    /// The slot of the directory where it was last seen; 0 when its place is not known (any more).
    var parent = 0
    var name: UnsafeMutablePointer<CChar>?
    /// O_PATH, or -1.
    var descriptor: Int32 = -1
    /// Neighbours in the list of descriptors that may be closed; 0 is none.
    var older = 0
    var newer = 0
    var listed = false
    /// The request that used the descriptor last: not closed while that one is served.
    var usedBy: UInt64 = 0
    /// Change time and size at the last open, when that was settled: see `FileServer.mayKeepCache`.
    var openedChange: Int64 = 0
    var openedSize: UInt64 = 0
}

/// All nodes: slots, the index by identity, and the list of descriptors from the longest unused to the latest.
///
/// Slot 0 is never used, slot 1 is the root (FUSE_ROOT_ID). A node's number is `generation << 32 | slot`.
/// Not thread-safe.
struct NodeTable {
    struct Key: Hashable {
        var share: Int32
        var device: UInt64
        var inode: UInt64
        var mount: UInt64
    }

    static let root = 1
    var slots: ContiguousArray<Node> = [Node(), Node()]
    private var free: [Int] = []
    private var byKey: [Key: Int] = [:]
    /// Most nodes, root and shares included.
    let capacity: Int
    /// Most descriptors held by nodes.
    let descriptorCapacity: Int
    private(set) var descriptors = 0
    /// Of these: those that may be closed, and those of shares.
    private var listed = 0
    private var shareRoots = 0
    private var oldest = 0
    private var newest = 0
    /// The number of the request being served.
    var request: UInt64 = 1

    init(capacity: Int, descriptorCapacity: Int) {
        self.capacity = capacity
        self.descriptorCapacity = descriptorCapacity
        slots[Self.root].inUse = true
        slots[Self.root].identity.type = S_IFDIR
        slots[Self.root].shownInode = 1
    }

    var count: Int { slots.count - 1 - free.count }

    func number(_ slot: Int) -> UInt64 { UInt64(slots[slot].generation) << 32 | UInt64(slot) }

    /// The slot of a number from the guest, nil if nobody has that number.
    func slot(_ number: UInt64) -> Int? {
        let slot = Int(number & 0xffff_ffff)
        guard slot > 0, slot < slots.count, slots[slot].inUse,
            slots[slot].generation == UInt32(truncatingIfNeeded: number >> 32)
        else { return nil }
        return slot
    }

    private func key(_ share: Int32, _ identity: FileIdentity) -> Key {
        Key(share: share, device: identity.device, inode: identity.inode, mount: identity.mount)
    }

    /// The node of a file, nil if the guest does not know it.
    func find(_ share: Int32, _ identity: FileIdentity) -> Int? {
        guard let slot = byKey[key(share, identity)], slots[slot].identity.type == identity.type else { return nil }
        return slot
    }

    /// A new node without lookups, seen as `name` in `parent`.
    mutating func add(_ share: Int32, _ identity: FileIdentity, parent: Int, name: UnsafePointer<CChar>)
        throws(FileError) -> Int
    {
        guard count < capacity, let copy = strdup(name) else { throw .full }
        let slot: Int
        if let reused = free.popLast() {
            slot = reused
        } else {
            slots.append(Node())
            slot = slots.count - 1
        }
        let generation = slots[slot].generation &+ 1
        slots[slot] = Node()
        slots[slot].generation = generation == 0 ? 1 : generation
        slots[slot].inUse = true
        slots[slot].share = share
        slots[slot].identity = identity
        slots[slot].shownInode = identity.inode
        slots[slot].parent = parent
        slots[slot].name = copy
        slots[parent].children += 1
        // An older tenant of the key, if any, was another kind of file: its inode number was used anew.
        byKey[key(share, identity)] = slot
        return slot
    }

    // MARK: Where a node is

    /// Notes that the file is now known as `name` in `parent`.
    mutating func place(_ slot: Int, parent: Int, name: UnsafePointer<CChar>) {
        // Nothing lies in itself, whatever a directory's listing says that the host changes meanwhile.
        if slots[slot].isShareRoot || slot == parent { return }
        if slots[slot].parent == parent, let old = slots[slot].name, strcmp(old, name) == 0 { return }
        guard let copy = strdup(name) else { return }
        // Held meanwhile: the node may have nothing but children, and lose these here.
        slots[slot].handles += 1
        slots[parent].children += 1
        breakCycle(slot, parent)
        forgetPlace(slot)
        slots[slot].parent = parent
        slots[slot].name = copy
        slots[slot].handles -= 1
        relist(slot)
    }

    /// A directory that the host moved below its own former child: what we remember of the way up is then wrong,
    /// and would lead in a circle.
    private mutating func breakCycle(_ slot: Int, _ parent: Int) {
        guard slots[slot].identity.type == S_IFDIR else { return }
        var step = parent
        for _ in 0..<slots.count {
            if step <= Self.root { return }
            let above = slots[step].parent
            if above == slot { break }
            step = above
        }
        // The last step before `slot`; or, had a circle been there already, one in it.
        if step > Self.root { forgetPlace(step) }
    }

    /// Notes that the file is no longer where it was. It can only be reached by an open descriptor from here on.
    mutating func forgetPlace(_ slot: Int) {
        let parent = slots[slot].parent
        guard parent != 0, !slots[slot].isShareRoot else { return }
        Glibc.free(slots[slot].name)
        slots[slot].name = nil
        slots[slot].parent = 0
        relist(slot)
        slots[parent].children -= 1
        release(parent)
    }

    // MARK: How long a node lives

    mutating func addLookup(_ slot: Int) {
        if slot != Self.root, slots[slot].lookups < UInt64.max { slots[slot].lookups += 1 }
    }

    /// The guest forgets `count` lookups; more than it has done is taken as all of them.
    mutating func forget(_ slot: Int, _ count: UInt64) {
        guard slot != Self.root else { return }
        slots[slot].lookups -= min(count, slots[slot].lookups)
        release(slot)
    }

    /// Frees a node that nothing needs any more, and then its parents likewise.
    mutating func release(_ start: Int) {
        var slot = start
        while slot > Self.root {
            let node = slots[slot]
            guard node.inUse, node.lookups == 0, node.children == 0, node.handles == 0, !node.isShareRoot else {
                return
            }
            closeDescriptor(slot)
            unindex(slot)
            Glibc.free(node.name)
            slots[slot] = Node()
            slots[slot].generation = node.generation
            free.append(slot)
            if node.parent == 0 { return }
            slots[node.parent].children -= 1
            slot = node.parent
        }
    }

    /// Ends all nodes of a share: they stay until the guest forgets them, and reach nothing.
    mutating func kill(share: Int32) {
        for slot in slots.indices where slots[slot].inUse && slots[slot].share == share {
            slots[slot].dead = true
            if slots[slot].isShareRoot { shareRoots -= 1 }
            slots[slot].isShareRoot = false
            closeDescriptor(slot)
            unindex(slot)
        }
        for slot in slots.indices where slots[slot].inUse && slots[slot].share == share { release(slot) }
    }

    /// Forgets all that the guest was told, as when it unmounts or boots anew; shares stay.
    mutating func reset() {
        for slot in slots.indices where slots[slot].inUse && slot != Self.root {
            slots[slot].lookups = 0
            slots[slot].handles = 0
        }
        for slot in slots.indices.reversed() where slots[slot].inUse { release(slot) }
    }

    /// Takes a node out of the index: the next lookup of its file makes a new one.
    mutating func unindex(_ slot: Int) {
        let key = key(slots[slot].share, slots[slot].identity)
        if byKey[key] == slot { byKey[key] = nil }
    }

    // MARK: Descriptors

    /// Gives a node its descriptor, closing another one's if there are too many.
    mutating func install(_ slot: Int, _ descriptor: Int32) throws(FileError) {
        if descriptors >= descriptorCapacity, !evict() {
            close(descriptor)
            throw .full
        }
        slots[slot].descriptor = descriptor
        descriptors += 1
        touch(slot)
    }

    /// Makes a node the root of a share, with the share's descriptor.
    mutating func adoptShareRoot(_ slot: Int, _ descriptor: Int32) {
        slots[slot].isShareRoot = true
        shareRoots += 1
        slots[slot].descriptor = descriptor
        descriptors += 1
    }

    /// Notes the use of a descriptor by the request being served.
    mutating func touch(_ slot: Int) {
        slots[slot].usedBy = request
        if slots[slot].listed, newest != slot { unlist(slot) }
        relist(slot)
    }

    /// Closes the descriptor that was not used for longest; false if each is needed.
    @discardableResult
    mutating func evict() -> Bool {
        var slot = oldest
        while slot != 0 {
            if slots[slot].usedBy != request {
                closeDescriptor(slot)
                return true
            }
            slot = slots[slot].newer
        }
        return false
    }

    mutating func closeDescriptor(_ slot: Int) {
        guard slots[slot].descriptor >= 0 else { return }
        unlist(slot)
        close(slots[slot].descriptor)
        slots[slot].descriptor = -1
        descriptors -= 1
    }

    /// A file without a place that nobody has open: only its descriptor reaches it, and hardly anybody asks for it.
    /// Such may take half of the descriptors; beyond that the file is as good as gone.
    mutating func limitPlaceless(_ slot: Int) {
        let node = slots[slot]
        guard node.parent == 0, node.handles == 0, !node.isShareRoot, slot != Self.root else { return }
        if descriptors - listed - shareRoots > descriptorCapacity / 2 { closeDescriptor(slot) }
    }

    mutating func addHandle(_ slot: Int) {
        slots[slot].handles += 1
        relist(slot)
    }

    mutating func removeHandle(_ slot: Int) {
        slots[slot].handles -= 1
        relist(slot)
        limitPlaceless(slot)
        release(slot)
    }

    /// Only a node that can be found again, by its name or by an open handle, may lose its descriptor.
    private mutating func relist(_ slot: Int) {
        let node = slots[slot]
        let wanted = node.descriptor >= 0 && !node.isShareRoot && (node.parent != 0 || node.handles > 0)
        if wanted == slots[slot].listed { return }
        guard wanted else { return unlist(slot) }
        slots[slot].listed = true
        listed += 1
        slots[slot].older = newest
        slots[slot].newer = 0
        if newest != 0 { slots[newest].newer = slot } else { oldest = slot }
        newest = slot
    }

    private mutating func unlist(_ slot: Int) {
        guard slots[slot].listed else { return }
        let (older, newer) = (slots[slot].older, slots[slot].newer)
        if older != 0 { slots[older].newer = newer } else { oldest = newer }
        if newer != 0 { slots[newer].older = older } else { newest = older }
        slots[slot].older = 0
        slots[slot].newer = 0
        slots[slot].listed = false
        listed -= 1
    }
}
