import Glibc

/// The descriptors of nodes: kept in the order of their last use, closed when there are too many.
extension NodeTable {
    /// Gives a node its descriptor in place of the one it has, closing another one's if there are too many.
    ///
    /// - Parameter share: the share through whose mount it was opened.
    mutating func install(_ slot: Int, _ descriptor: Int32, share: Int32) throws(FileError) {
        closeDescriptor(slot)
        if descriptors >= descriptorCapacity, !evict() {
            close(descriptor)
            throw .full
        }
        slots[slot].descriptor = descriptor
        slots[slot].descriptorShare = share
        descriptors += 1
        touch(slot)
    }

    /// Notes the use of a descriptor by the request being served.
    mutating func touch(_ slot: Int) {
        slots[slot].usedBy = request
        if slots[slot].isListed, newest != slot { unlist(slot) }
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

    /// A file without a location that nobody has open: only its descriptor reaches it, and hardly anybody asks for it.
    /// Such may take half of the descriptors; beyond that the file is as good as gone.
    mutating func limitUnlocated(_ slot: Int) {
        let node = slots[slot]
        guard node.parent == 0, node.handles == 0, !node.isShareRoot, !node.isSynthetic else { return }
        if descriptors - listed > descriptorCapacity / 2 { closeDescriptor(slot) }
    }

    mutating func addHandle(_ slot: Int) {
        slots[slot].handles += 1
        relist(slot)
    }

    mutating func removeHandle(_ slot: Int) {
        slots[slot].handles -= 1
        relist(slot)
        limitUnlocated(slot)
        release(slot)
    }

    /// Only a node that can be found again, by its name, as a share or by an open handle, may lose its descriptor.
    mutating func relist(_ slot: Int) {
        let node = slots[slot]
        let isReopenable = node.parent != 0 || node.isShareRoot || node.handles > 0
        let belongs = node.descriptor >= 0 && isReopenable
        if belongs == node.isListed { return }
        guard belongs else { return unlist(slot) }
        slots[slot].isListed = true
        listed += 1
        slots[slot].older = newest
        slots[slot].newer = 0
        if newest != 0 { slots[newest].newer = slot } else { oldest = slot }
        newest = slot
    }

    private mutating func unlist(_ slot: Int) {
        guard slots[slot].isListed else { return }
        let (older, newer) = (slots[slot].older, slots[slot].newer)
        if older != 0 { slots[older].newer = newer } else { oldest = newer }
        if newer != 0 { slots[newer].older = older } else { newest = older }
        slots[slot].older = 0
        slots[slot].newer = 0
        slots[slot].isListed = false
        listed -= 1
    }
}
