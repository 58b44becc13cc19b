import CLinux
import Glibc

/// INIT, DESTROY, LOOKUP, FORGET: what the guest agrees on and what it knows.
extension FileServer {
    func initialize(_ request: FuseRequest) throws(FileError) -> Int {
        // The arguments grew with INIT_EXT: an older guest sends 16 bytes, a newer one 64.
        guard request.arguments.count >= 16 else { throw .invalid }
        let major = request.arguments.loadUnaligned(fromByteOffset: 0, as: UInt32.self)
        let minor = request.arguments.loadUnaligned(fromByteOffset: 4, as: UInt32.self)
        let readahead = request.arguments.loadUnaligned(fromByteOffset: 8, as: UInt32.self)
        let offered = request.arguments.loadUnaligned(fromByteOffset: 12, as: UInt32.self)
        var out = fuse_init_out()
        out.major = 7
        out.minor = 38
        // A guest of a later major version asks again with ours.
        if major > 7 { return put(out) }
        guard major == 7, minor >= 31 else { throw FileError(EPROTO) }
        // Also a guest that boots anew without a DESTROY starts from nothing.
        forgetSession()
        out.flags = offered & FuseFeatures.wanted
        submounts = out.flags & FuseFeatures.submounts != 0
        setxattrExtended = out.flags & FuseFeatures.setxattrExtended != 0
        out.max_readahead = min(readahead, UInt32(FuseLimits.data))
        out.max_background = 64
        out.congestion_threshold = 48
        out.max_write = UInt32(FuseLimits.data)
        out.time_gran = 1
        out.max_pages = UInt16(FuseLimits.data / 4096)
        return put(out)
    }

    func destroy() -> Int {
        forgetSession()
        return 0
    }

    private func forgetSession() {
        for slot in handles.removeAll(where: { _ in true }) { nodes.removeHandle(slot) }
        nodes.reset()
    }

    func lookup(_ request: FuseRequest) throws(FileError) -> Int {
        let parent = try slot(request.header.nodeid)
        let name = try request.name(at: 0)
        if nodes.slots[parent].isSynthetic { return put(try syntheticEntry(parent, name)) }
        let status = try FileStatus(directory(parent), name)
        return put(entry(try node(status, parent: parent, name: name), status))
    }

    /// FORGET and BATCH_FORGET. There is no answer, so what is not understood is passed over.
    func forget(_ header: fuse_in_header, _ reader: inout RequestReader, batch: Bool) {
        locked {
            if !batch {
                guard let one = reader.take(fuse_forget_in()) else { return }
                forget(header.nodeid, one.nlookup)
                return
            }
            guard let many = reader.take(fuse_batch_forget_in()) else { return }
            var left = many.count
            while left > 0, let one = reader.take(fuse_forget_one()) {
                forget(one.nodeid, one.nlookup)
                left -= 1
            }
        }
    }

    private func forget(_ number: UInt64, _ count: UInt64) {
        if let slot = nodes.slot(number) { nodes.forget(slot, count) }
    }
}
