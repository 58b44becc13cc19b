import Glibc

/// Where nodes are, and which shares lead there.
extension NodeTable {
    /// Sets a node's location: `name` in `parent`.
    ///
    /// A file with several names keeps one to which a writable share leads, so that it can be written whichever name was
    /// used last.
    ///
    /// - Parameter moved: the guest has just moved it there, so it is nowhere else.
    mutating func setLocation(_ slot: Int, parent: Int, name: UnsafePointer<CChar>, moved: Bool = false) {
        let node = slots[slot]
        // Nothing lies in itself, whatever a directory's listing says that the host changes meanwhile.
        if slot == parent || slots[parent].isSynthetic { return }
        if node.parent == parent, let old = node.name, strcmp(old, name) == 0 {
            slots[slot].isMislocated = false
            return
        }
        if node.parent != 0, !moved, !node.isMislocated, !node.isDirectory, writableRoot(above: node.parent) != nil,
            writableRoot(above: parent) == nil
        {
            return
        }
        // Without a name the file is reached by what is open, or looked up again.
        let length = strlen(name)
        guard (try? memory.takeForNodes(length)) != nil else { return }
        guard let copy = strdup(name) else { return memory.give(length) }
        // Held meanwhile: the node may have nothing but children, and lose these here.
        slots[slot].handles += 1
        slots[parent].children += 1
        breakCycle(slot, parent)
        forgetLocation(slot)
        slots[slot].parent = parent
        slots[slot].name = copy
        slots[slot].isMislocated = false
        slots[slot].formerShares = (-1, -1)
        slots[slot].handles -= 1
        relist(slot)
    }

    /// A directory that the host moved below its own former child: the recorded path up is then wrong, and would be a
    /// circle.
    private mutating func breakCycle(_ slot: Int, _ parent: Int) {
        guard slots[slot].isDirectory else { return }
        var step = parent
        for _ in 0..<slots.count {
            if step == 0 { return }
            let above = slots[step].parent
            if above == slot { break }
            step = above
        }
        // The last step before `slot`; or, had a circle been there already, one in it.
        if step != 0 { forgetLocation(step) }
    }

    /// Forgets a node's name.
    mutating func freeName(_ slot: Int) {
        guard let name = slots[slot].name else { return }
        memory.give(strlen(name))
        Glibc.free(name)
        slots[slot].name = nil
    }

    /// Notes that the file is no longer where it was. It can only be reached by an open descriptor from here on.
    mutating func forgetLocation(_ slot: Int) {
        let parent = slots[slot].parent
        guard parent != 0 else { return }
        slots[slot].formerShares = shares(above: slot)
        freeName(slot)
        slots[slot].parent = 0
        slots[slot].isMislocated = false
        relist(slot)
        slots[parent].children -= 1
        release(parent)
    }

    // MARK: Shares

    /// The outermost root of a writable share on the path up from a node, itself included; nil: there is none.
    ///
    /// The outermost: all files that one share leads to are then reached through one mount of the host, as rename(2) and
    /// link(2) demand.
    func writableRoot(above slot: Int) -> Int? {
        var found: Int?
        walkUp(slot) { if slots[$0].isRootWritable { found = $0 } }
        return found
    }

    /// The nearest and the outermost share on the path up from a node, itself included; -1: there is none.
    func shares(above slot: Int) -> (nearest: Int32, outermost: Int32) {
        var found = (nearest: Int32(-1), outermost: Int32(-1))
        var last = slot
        walkUp(slot) {
            last = $0
            guard slots[$0].isShareRoot else { return }
            if found.nearest < 0 { found.nearest = slots[$0].rootShare }
            found.outermost = slots[$0].rootShare
        }
        if found.nearest < 0, last != 0 { return slots[last].formerShares }
        return found
    }

    private func walkUp(_ slot: Int, _ body: (Int) -> Void) {
        var step = slot
        for _ in 0..<slots.count {
            if step == 0 { return }
            body(step)
            step = slots[step].parent
        }
    }

    /// For each node of a file system whether its location lies in a share.
    func reachable(in fileSystem: Int32) -> [Bool] {
        // 0 unknown, 1 reachable, 2 not
        var states = [UInt8](repeating: 0, count: slots.count)
        var path: [Int] = []
        for slot in slots.indices where slots[slot].inUse && slots[slot].fileSystem == fileSystem {
            path.removeAll(keepingCapacity: true)
            var step = slot
            while step != 0, states[step] == 0, !slots[step].isShareRoot, path.count <= slots.count {
                path.append(step)
                step = slots[step].parent
            }
            let state: UInt8 = step == 0 ? 2 : slots[step].isShareRoot ? 1 : states[step] == 0 ? 2 : states[step]
            if step != 0 { states[step] = state }
            for step in path { states[step] = state }
        }
        return states.map { $0 == 1 }
    }
}
