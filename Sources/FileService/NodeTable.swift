import Glibc

/// All nodes: slots, the index by identity, and the list of descriptors from the longest unused to the latest.
///
/// Slot 0 is never used, slot 1 is the root (FUSE_ROOT_ID). A node's number is `generation << 32 | slot`.
/// Not thread-safe.
struct NodeTable {
    /// Which file: one file of the host is one node, whichever share leads there.
    private struct Key: Hashable {
        var fileSystem: Int32
        var device: UInt64
        var inode: UInt64
    }

    static let root = 1
    var slots: ContiguousArray<Node> = [Node(), Node()]
    private var free: [Int] = []
    private var byKey: [Key: Int] = [:]
    /// Most nodes, synthetic ones and roots of shares included.
    let capacity: Int
    /// Most descriptors held by nodes.
    let descriptorCapacity: Int
    var descriptors = 0
    /// Of these: those that may be closed.
    var listed = 0
    var oldest = 0
    var newest = 0
    let memory: MemoryBudget
    /// The number of the request being served.
    var request: UInt64 = 1

    init(capacity: Int, descriptorCapacity: Int, memory: MemoryBudget) {
        self.memory = memory
        self.capacity = capacity
        self.descriptorCapacity = descriptorCapacity
        slots[Self.root].inUse = true
        slots[Self.root].isSynthetic = true
        slots[Self.root].identity.type = S_IFDIR
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

    private func key(_ fileSystem: Int32, _ identity: FileIdentity) -> Key {
        Key(fileSystem: fileSystem, device: identity.device, inode: identity.inode)
    }

    /// The node of a file, nil if the guest does not know it.
    func find(_ fileSystem: Int32, _ identity: FileIdentity) -> Int? {
        guard let slot = byKey[key(fileSystem, identity)], slots[slot].identity.type == identity.type else {
            return nil
        }
        return slot
    }

    /// A new node without lookups and without a location.
    mutating func add(_ fileSystem: Int32, _ identity: FileIdentity, isForeign: Bool) throws(FileError) -> Int {
        let slot = try takeSlot()
        slots[slot].fileSystem = fileSystem
        slots[slot].identity = identity
        slots[slot].isForeign = isForeign
        // An older tenant of the key, if any, was another kind of file: its inode number was used anew.
        byKey[key(fileSystem, identity)] = slot
        return slot
    }

    /// A new node of a file system's directory.
    mutating func addSynthetic() throws(FileError) -> Int {
        let slot = try takeSlot()
        slots[slot].isSynthetic = true
        slots[slot].identity.type = S_IFDIR
        return slot
    }

    private mutating func takeSlot() throws(FileError) -> Int {
        guard count < capacity else { throw .full }
        try memory.takeForNodes(MemoryBudget.node)
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
        return slot
    }

    // MARK: How long a node lives

    mutating func addLookup(_ slot: Int) {
        if slot != Self.root, slots[slot].lookups < UInt64.max { slots[slot].lookups += 1 }
    }

    /// The guest forgets `count` lookups; more than it has made counts as all of them.
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
            guard node.inUse, node.lookups == 0, node.children == 0, node.handles == 0, !node.isShareRoot,
                !node.isSynthetic || node.isStale
            else { return }
            closeDescriptor(slot)
            unindex(slot)
            freeName(slot)
            memory.give(MemoryBudget.node)
            slots[slot] = Node()
            slots[slot].generation = node.generation
            free.append(slot)
            if node.parent == 0 { return }
            slots[node.parent].children -= 1
            slot = node.parent
        }
    }

    /// Ends a node: it stays until the guest forgets it, and leads nowhere.
    mutating func invalidate(_ slot: Int) {
        slots[slot].isStale = true
        closeDescriptor(slot)
        unindex(slot)
    }

    /// Forgets all that the guest knows, as when it unmounts or boots anew; shares stay.
    mutating func reset() {
        for slot in slots.indices where slots[slot].inUse && slot != Self.root {
            slots[slot].lookups = 0
            slots[slot].handles = 0
        }
        for slot in slots.indices.reversed() where slots[slot].inUse { release(slot) }
    }

    // MARK: A saved table

    /// Puts free slots of these generations, from the one behind the root's on, in place of all nodes.
    mutating func clear(_ generations: [UInt32] = []) {
        for slot in slots.indices where slots[slot].inUse && slot != Self.root {
            closeDescriptor(slot)
            freeName(slot)
            memory.give(MemoryBudget.node)
        }
        slots = [Node(), slots[Self.root]]
        for generation in generations {
            slots.append(Node())
            slots[slots.count - 1].generation = generation
        }
        byKey = [:]
        collectFree()
    }

    /// Makes the list of free slots anew.
    mutating func collectFree() {
        free = slots.indices.reversed().filter { $0 > Self.root && !slots[$0].inUse }
    }

    /// Makes a free slot the one of a node, without taking it out of the list of free ones.
    mutating func occupy(_ slot: Int, lookups: UInt64) throws(FileError) {
        try memory.takeForNodes(MemoryBudget.node)
        slots[slot].inUse = true
        slots[slot].lookups = lookups
    }

    /// Gives a node without a location one, as it stands in a saved table.
    mutating func locate(_ slot: Int, parent: Int, name: [UInt8]) throws(FileError) {
        try memory.takeForNodes(name.count)
        let copy = (name + [0]).withUnsafeBufferPointer { bytes in
            bytes.withMemoryRebound(to: CChar.self) { $0.baseAddress.flatMap { strdup($0) } }
        }
        guard let copy else {
            memory.give(name.count)
            throw .noMemory
        }
        slots[slot].name = copy
        slots[slot].parent = parent
        slots[parent].children += 1
    }

    /// Takes a node's location away; nothing is released.
    mutating func dislocate(_ slot: Int) {
        freeName(slot)
        slots[slots[slot].parent].children -= 1
        slots[slot].parent = 0
        relist(slot)
    }

    /// Says which file a node is. Where two nodes are one file, the first stays the one that is found by it.
    mutating func identify(_ slot: Int, _ fileSystem: Int32, _ identity: FileIdentity, isForeign: Bool) {
        slots[slot].fileSystem = fileSystem
        slots[slot].identity = identity
        slots[slot].isForeign = isForeign
        let key = key(fileSystem, identity)
        if byKey[key] == nil { byKey[key] = slot }
    }

    /// Takes a node out of the index: the next lookup of its file makes a new one.
    private mutating func unindex(_ slot: Int) {
        if slots[slot].isSynthetic { return }
        let key = key(slots[slot].fileSystem, slots[slot].identity)
        if byKey[key] == slot { byKey[key] = nil }
    }
}
