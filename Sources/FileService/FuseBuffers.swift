import CLinux
import Glibc

/// Takes bytes, in order, out of a request's buffers in guest memory. Each byte is read once.
struct RequestReader {
    private let parts: UnsafeBufferPointer<iovec>
    private var part = 0
    private var offset = 0
    /// Bytes not taken yet.
    private(set) var remaining: Int

    init(_ parts: UnsafeBufferPointer<iovec>) {
        self.parts = parts
        remaining = totalLength(parts)
    }

    /// Takes up to `count` bytes; answers how many there were.
    mutating func take(into target: UnsafeMutableRawPointer, _ count: Int) -> Int {
        var done = 0
        while done < count, part < parts.count {
            let room = parts[part].iov_len &- offset
            if room == 0 || parts[part].iov_base == nil {
                part += 1
                offset = 0
                continue
            }
            let step = min(room, count &- done)
            if let base = parts[part].iov_base { memcpy(target + done, base + offset, step) }
            done &+= step
            offset &+= step
        }
        remaining &-= done
        return done
    }

    /// Takes a structure of the wire; nil if there are too few bytes.
    mutating func take<T: BitwiseCopyable>(_ empty: T) -> T? {
        var value = empty
        let size = MemoryLayout<T>.size
        guard remaining >= size else { return nil }
        let taken = withUnsafeMutableBytes(of: &value) { bytes in
            bytes.baseAddress.map { take(into: $0, size) } ?? 0
        }
        return taken == size ? value : nil
    }

    /// What was not taken yet, as buffers: `limit` bytes after the next `skip`.
    func rest<R>(skip: Int, limit: Int, _ body: (UnsafeBufferPointer<iovec>) -> R) -> R {
        var part = part
        var offset = offset + skip
        while part < parts.count, offset >= Int(clamping: parts[part].iov_len) {
            offset &-= Int(clamping: parts[part].iov_len)
            part += 1
        }
        return window(parts, from: part, offset: offset, limit: limit, body)
    }
}

/// Bytes in all of `parts`; a sum that does not fit is as good as endless and answered as `Int.max`.
func totalLength(_ parts: UnsafeBufferPointer<iovec>) -> Int {
    var sum = 0
    for part in parts {
        let (next, overflow) = sum.addingReportingOverflow(Int(clamping: part.iov_len))
        if overflow { return Int.max }
        sum = next
    }
    return sum
}

/// Calls `body` with the buffers that hold `limit` bytes from byte `skip` of all.
func skipping<R>(
    _ parts: UnsafeBufferPointer<iovec>, _ skip: Int, limit: Int, _ body: (UnsafeBufferPointer<iovec>) -> R
) -> R {
    var part = 0
    var offset = skip
    while part < parts.count, offset >= Int(clamping: parts[part].iov_len) {
        offset &-= Int(clamping: parts[part].iov_len)
        part += 1
    }
    return window(parts, from: part, offset: offset, limit: limit, body)
}

/// Calls `body` with the buffers that hold `limit` bytes from `offset` in part number `from`. Where the cut falls
/// between buffers, as with every Linux guest, these are the given ones and nothing is copied.
private func window<R>(
    _ parts: UnsafeBufferPointer<iovec>, from: Int, offset: Int, limit: Int, _ body: (UnsafeBufferPointer<iovec>) -> R
) -> R {
    let rest = UnsafeBufferPointer(rebasing: parts[min(from, parts.count)...])
    if offset == 0, totalLength(rest) <= limit { return body(rest) }
    return withUnsafeTemporaryAllocation(of: iovec.self, capacity: max(rest.count, 1)) { cut in
        var count = 0
        var left = limit
        var skip = offset
        for part in rest where left > 0 {
            guard let base = part.iov_base else { continue }
            let length = min(Int(clamping: part.iov_len) &- skip, left)
            if length > 0 {
                cut[count] = iovec(iov_base: base + skip, iov_len: length)
                count += 1
                left &-= length
            }
            skip = 0
        }
        return body(UnsafeBufferPointer(rebasing: cut[..<count]))
    }
}

/// Puts answers into a request's writable buffers.
struct ReplyWriter {
    static let headerSize = MemoryLayout<fuse_out_header>.size
    let parts: UnsafeBufferPointer<iovec>
    /// Bytes, header included.
    let room: Int

    init(_ parts: UnsafeBufferPointer<iovec>) {
        self.parts = parts
        room = totalLength(parts)
    }

    /// Bytes that an answer may carry after its header.
    var payloadRoom: Int { max(0, room - Self.headerSize) }

    /// Writes header and payload; answers the bytes written in all, 0 where not even a header fits.
    func send(unique: UInt64, payload: UnsafeRawBufferPointer) -> UInt32 {
        guard payload.count <= payloadRoom, room >= Self.headerSize else { return fail(unique: unique, .input) }
        if let base = payload.baseAddress { scatter(base, payload.count, at: Self.headerSize) }
        return sendHeader(unique: unique, error: 0, payload: payload.count)
    }

    /// An answer without payload.
    func sendHeaderIfRoom(unique: UInt64) -> UInt32 {
        room >= Self.headerSize ? sendHeader(unique: unique, error: 0, payload: 0) : 0
    }

    func fail(unique: UInt64, _ error: FileError) -> UInt32 {
        guard room >= Self.headerSize else { return 0 }
        return sendHeader(unique: unique, error: -error.code, payload: 0)
    }

    /// Writes the header of an answer whose `payload` bytes are in place already.
    func sendHeader(unique: UInt64, error: Int32, payload: Int) -> UInt32 {
        let length = UInt32(clamping: Self.headerSize + payload)
        var header = fuse_out_header(len: length, error: error, unique: unique)
        withUnsafeBytes(of: &header) { bytes in
            if let base = bytes.baseAddress { scatter(base, bytes.count, at: 0) }
        }
        return length
    }

    private func scatter(_ source: UnsafeRawPointer, _ count: Int, at start: Int) {
        var skip = start
        var done = 0
        for part in parts where done < count {
            let length = Int(clamping: part.iov_len)
            if skip >= length {
                skip &-= length
                continue
            }
            guard let base = part.iov_base else { continue }
            let step = min(length &- skip, count &- done)
            memcpy(base + skip, source + done, step)
            done &+= step
            skip = 0
        }
    }
}
