import Glibc

@testable import FileService

/// A directory of the host that is removed with its content when its owner ends.
final class ScratchDirectory {
    let path: String

    init(in parent: String = "/tmp") {
        var template = Array("\(parent)/martlet-files-XXXXXX".utf8CString)
        path = template.withUnsafeMutableBufferPointer { buffer in
            buffer.baseAddress.flatMap { mkdtemp($0) }.map { String(cString: $0) } ?? ""
        }
        chmod(path, 0o755)
    }

    deinit {
        removeTree(AT_FDCWD, path)
        rmdir(path)
    }

    /// Empties a directory. Names stay bytes: a guest may have made some that are no UTF-8.
    private func removeTree(_ parent: Int32, _ name: UnsafePointer<CChar>) {
        let raw = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        guard raw >= 0, let directory = fdopendir(raw) else { return }
        defer { closedir(directory) }
        while let entry = readdir(directory) {
            withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                guard let child = bytes.baseAddress?.assumingMemoryBound(to: CChar.self), isEntryName(child) else {
                    return
                }
                if unlinkat(raw, child, 0) == 0 { return }
                removeTree(raw, child)
                unlinkat(raw, child, AT_REMOVEDIR)
            }
        }
    }

    func write(_ name: String, _ text: String, mode: mode_t = 0o644) {
        let file = Glibc.open("\(path)/\(name)", O_WRONLY | O_CREAT | O_TRUNC, mode)
        _ = text.withCString { Glibc.write(file, $0, strlen($0)) }
        close(file)
        chmod("\(path)/\(name)", mode)
    }

    func read(_ name: String) -> String? {
        let file = Glibc.open("\(path)/\(name)", O_RDONLY)
        if file < 0 { return nil }
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        let count = Glibc.read(file, &bytes, bytes.count)
        return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
    }

    func makeDirectory(_ name: String, mode: mode_t = 0o755) {
        mkdir("\(path)/\(name)", mode)
        chmod("\(path)/\(name)", mode)
    }

    func status(_ name: String) -> stat? {
        var status = stat()
        return lstat("\(path)/\(name)", &status) == 0 ? status : nil
    }
}
