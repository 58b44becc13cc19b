import CLinux
import Glibc

/// Reads from `offset` of a file on, until the buffer is full or the file has ended. Nothing of it is mapped, so that nobody can take
/// it away meanwhile.
///
/// - Parameters:
///   - file: the file's descriptor, whose own position does not change.
///   - name: for the error.
/// - Returns: how many bytes were read.
public func readAll(
    into buffer: UnsafeMutableRawBufferPointer, from file: Int32, at offset: Int64, _ name: String
) throws(SystemError) -> Int {
    var done = 0
    while done < buffer.count {
        let part = try retrying("read", name) {
            pread(file, buffer.baseAddress.map { $0 + done }, buffer.count - done, off_t(offset) + done)
        }
        if part == 0 { break }
        done += part
    }
    return done
}

/// Writes all bytes to a file, from `offset` on.
///
/// - Parameters:
///   - file: the file's descriptor, whose own position does not change.
///   - name: for the error.
public func writeAll(
    _ bytes: UnsafeRawBufferPointer, to file: Int32, at offset: Int64, _ name: String
) throws(SystemError) {
    var done = 0
    while done < bytes.count {
        done += try retrying("write", name) {
            pwrite(file, bytes.baseAddress.map { $0 + done }, bytes.count - done, off_t(offset) + done)
        }
    }
}

/// Writes all bytes to a file, from its beginning on.
public func writeAll(_ bytes: [UInt8], to file: Int32, _ name: String) throws(SystemError) {
    let result: Result<Void, SystemError> = bytes.withUnsafeBytes { bytes in
        Result { () throws(SystemError) in try writeAll(bytes, to: file, at: 0, name) }
    }
    try result.get()
}

/// Calls `body` with each part of a file that is not a hole, in whole pages, where the file system's blocks are smaller.
///
/// - Parameters:
///   - range: what of the file is looked at, whole pages.
///   - name: for the error.
public func eachExtent(
    of file: Int32, in range: Range<Int64>, _ name: String, _ body: (Range<Int64>) throws -> Void
) throws {
    let page: Int64 = 4096
    var position = range.lowerBound
    while position < range.upperBound {
        let data = lseek(file, off_t(position), martlet_SEEK_DATA)
        if data < 0, errno == ENXIO { return }
        try check("lseek SEEK_DATA", name, data)
        let hole = try check("lseek SEEK_HOLE", name, lseek(file, data, martlet_SEEK_HOLE))
        let start = Int64(data) & ~(page - 1)
        let end = min((Int64(hole) + page - 1) & ~(page - 1), range.upperBound)
        if start >= end { return }
        try body(start..<end)
        position = end
    }
}
