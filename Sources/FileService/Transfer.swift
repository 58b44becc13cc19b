import CLinux
import Glibc

/// READ, WRITE and the other operations on an open file that may take long: straight between the guest's buffers and
/// the file, beside the lock.
extension FileServer {
    /// The open file of a handle.
    private func file(_ node: UInt64, _ number: UInt64, directory: Bool = false) throws(FileError) -> OpenFile {
        try locked { () throws(FileError) in
            guard nodes.slot(node).map({ !nodes.slots[$0].isStale }) == true else { throw .stale }
            guard let file = handles.find(number, node: node, directory: directory) else { throw .badHandle }
            return file
        }
    }

    func read(_ header: fuse_in_header, _ reader: inout RequestReader, _ writer: ReplyWriter) -> UInt32 {
        do throws(FileError) {
            guard let input = reader.take(fuse_read_in()) else { throw .invalid }
            let file = try file(header.nodeid, input.fh)
            let size = min(Int(input.size), FuseLimits.data, writer.payloadRoom)
            guard let offset = Int(exactly: input.offset), offset <= Int.max - size else { throw .invalid }
            guard writer.room >= ReplyWriter.headerSize else { return 0 }
            var done = 0
            while done < size {
                let start = ReplyWriter.headerSize + done
                let count = skipping(writer.parts, start, limit: size - done) {
                    preadv(file.descriptor, $0.baseAddress, Int32(min($0.count, 1024)), offset + done)
                }
                if count < 0, errno == EINTR { continue }
                if count < 0, done == 0 { throw .last }
                if count <= 0 { break }
                done += count
            }
            return writer.sendHeader(unique: header.unique, error: 0, payload: done)
        } catch {
            return writer.fail(unique: header.unique, error)
        }
    }

    func write(_ header: fuse_in_header, _ reader: inout RequestReader, _ writer: ReplyWriter) -> UInt32 {
        do throws(FileError) {
            guard let input = reader.take(fuse_write_in()) else { throw .invalid }
            let file = try file(header.nodeid, input.fh)
            if file.isReadOnly { throw .readOnly }
            guard Int(input.size) == reader.remaining, Int(input.size) <= FuseLimits.data,
                let offset = Int(exactly: input.offset), offset <= Int.max - Int(input.size)
            else { throw .invalid }
            let cached = input.write_flags & FuseFlag.writeCache != 0
            let append = !cached && Int32(bitPattern: input.flags) & O_APPEND != 0
            let killing = input.write_flags & FuseFlag.writeKillPrivileges != 0
            let done: Int
            if killing {
                done = try droppingSetID { () throws(FileError) in try transfer(file, reader, offset, append) }
            } else {
                done = try transfer(file, reader, offset, append)
            }
            var out = fuse_write_out()
            out.size = UInt32(clamping: done)
            return withUnsafeBytes(of: &out) { writer.send(unique: header.unique, payload: $0) }
        } catch {
            return writer.fail(unique: header.unique, error)
        }
    }

    /// Writes all that is left in `reader`; answers how much went.
    private func transfer(
        _ file: OpenFile, _ reader: RequestReader, _ offset: Int, _ append: Bool
    ) throws(FileError) -> Int {
        let size = reader.remaining
        var done = 0
        while done < size {
            let count = reader.rest(skip: done, limit: size - done) { parts in
                let number = Int32(min(parts.count, 1024))
                return append
                    ? martlet_append(file.descriptor, parts.baseAddress, number)
                    : pwritev(file.descriptor, parts.baseAddress, number, offset + done)
            }
            if count < 0, errno == EINTR { continue }
            if count < 0, done == 0 { throw .last }
            if count <= 0 { break }
            done += count
        }
        return done
    }

    func ioOutsideLock(
        _ operation: FuseOperation, _ header: fuse_in_header, _ reader: inout RequestReader, _ writer: ReplyWriter
    ) -> UInt32 {
        do throws(FileError) {
            switch operation {
            case .lseek:
                var out = try seek(header, &reader)
                return withUnsafeBytes(of: &out) { writer.send(unique: header.unique, payload: $0) }
            case .copyFileRange:
                var out = try copyRange(header, &reader)
                return withUnsafeBytes(of: &out) { writer.send(unique: header.unique, payload: $0) }
            case .fallocate: try allocate(header, &reader)
            default: try sync(header, &reader, directory: operation == .fsyncdir)
            }
            return writer.sendHeaderIfRoom(unique: header.unique)
        } catch {
            return writer.fail(unique: header.unique, error)
        }
    }

    private func sync(_ header: fuse_in_header, _ reader: inout RequestReader, directory: Bool) throws(FileError) {
        guard let input = reader.take(fuse_fsync_in()) else { throw .invalid }
        if directory, locked({ nodes.slot(header.nodeid).map { nodes.slots[$0].isSynthetic } == true }) { return }
        let file = try file(header.nodeid, input.fh, directory: directory)
        let dataOnly = input.fsync_flags & FuseFlag.fsyncDataOnly != 0
        if (dataOnly ? fdatasync(file.descriptor) : fsync(file.descriptor)) < 0 { throw .last }
    }

    private func allocate(_ header: fuse_in_header, _ reader: inout RequestReader) throws(FileError) {
        guard let input = reader.take(fuse_fallocate_in()) else { throw .invalid }
        let file = try file(header.nodeid, input.fh)
        if file.isReadOnly { throw .readOnly }
        guard file.isWritable else { throw .badHandle }
        guard let offset = Int(exactly: input.offset), let length = Int(exactly: input.length) else { throw .invalid }
        // KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
        guard input.mode & ~0x13 == 0 else { throw .unsupported }
        if martlet_fallocate(file.descriptor, Int32(input.mode), offset, length) < 0 { throw .last }
    }

    private func seek(_ header: fuse_in_header, _ reader: inout RequestReader) throws(FileError) -> fuse_lseek_out {
        guard let input = reader.take(fuse_lseek_in()) else { throw .invalid }
        let file = try file(header.nodeid, input.fh)
        let whence = Int32(truncatingIfNeeded: input.whence)
        guard whence == martlet_SEEK_DATA || whence == martlet_SEEK_HOLE, let offset = Int(exactly: input.offset) else {
            throw .invalid
        }
        let result = Glibc.lseek(file.descriptor, offset, whence)
        if result < 0 { throw .last }
        return fuse_lseek_out(offset: UInt64(result))
    }

    private func copyRange(
        _ header: fuse_in_header, _ reader: inout RequestReader
    ) throws(FileError) -> fuse_write_out {
        guard let input = reader.take(fuse_copy_file_range_in()) else { throw .invalid }
        let source = try file(header.nodeid, input.fh_in)
        let target = try file(input.nodeid_out, input.fh_out)
        if target.isReadOnly { throw .readOnly }
        guard target.isWritable else { throw .badHandle }
        guard input.flags == 0, var from = Int64(exactly: input.off_in), var to = Int64(exactly: input.off_out) else {
            throw .invalid
        }
        // A part is a fair answer: the guest asks again, and others get their turn in between.
        let length = Int(min(input.len, 16 << 20))
        let count = martlet_copy_file_range(source.descriptor, &from, target.descriptor, &to, length)
        if count < 0 { throw .last }
        var out = fuse_write_out()
        out.size = UInt32(clamping: count)
        return out
    }
}
