import Glibc

/// Operations on a chain's buffers as one sequence of bytes.
enum Vectors {
    /// Copies up to `count` bytes of `source`, after its first `skip` bytes, to `target`.
    ///
    /// - Returns: the number of bytes copied.
    static func copyOut(
        _ source: UnsafeBufferPointer<iovec>, skip: Int = 0, to target: UnsafeMutableRawPointer, count: Int
    ) -> Int {
        var skip = skip
        var done = 0
        for vector in source {
            if done == count { break }
            if skip >= vector.iov_len {
                skip -= vector.iov_len
                continue
            }
            guard let base = vector.iov_base else { continue }
            let step = min(vector.iov_len - skip, count - done)
            memcpy(target + done, base + skip, step)
            done += step
            skip = 0
        }
        return done
    }

    /// Copies `count` bytes of `source` to the start of `target`.
    ///
    /// - Returns: the number of bytes that fit.
    static func copyIn(
        _ source: UnsafeRawPointer, count: Int, to target: UnsafeBufferPointer<iovec>
    ) -> Int {
        var done = 0
        for vector in target {
            if done == count { break }
            guard let base = vector.iov_base else { continue }
            let step = min(vector.iov_len, count - done)
            memcpy(base, source + done, step)
            done += step
        }
        return done
    }

    /// Writes to `target` the vectors for up to `count` bytes of `source` after its first `skip` bytes.
    ///
    /// - Parameter target: has room for as many vectors as `source` has.
    /// - Returns: the number of vectors.
    static func slice(
        _ source: UnsafeBufferPointer<iovec>, skip: Int, count: Int, to target: UnsafeMutablePointer<iovec>
    ) -> Int {
        var skip = skip
        var left = count
        var vectors = 0
        for vector in source {
            if left == 0 { break }
            if skip >= vector.iov_len {
                skip -= vector.iov_len
                continue
            }
            guard let base = vector.iov_base else { continue }
            let step = min(vector.iov_len - skip, left)
            target[vectors] = iovec(iov_base: base + skip, iov_len: step)
            vectors += 1
            left -= step
            skip = 0
        }
        return vectors
    }
}
