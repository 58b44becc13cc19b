import CLinux
import Glibc
public import LinuxSystem

/// Serves directories of the host to a guest that speaks FUSE (protocol 7.31 and later).
///
/// The guest sees one read-only root with a directory for each file system of the host, and in that an entry for each
/// share. A request is answered from its bytes and the descriptors handed in, nothing else: the server opens no absolute
/// path, nothing relative to its working directory, and nothing that is not a regular file or a directory.
///
/// Safe to use from several threads: one lock guards the tables and everything that changes names or attributes;
/// reads, writes and flushes of open files run beside it.
public final class FileServer: @unchecked Sendable {
    /// What a server allows.
    public struct Options: Sendable {
        /// Most files that the guest may know at a time; one takes about 250 bytes here and 1 KiB in the guest.
        public var maximumNodes = 2 << 20
        /// Most descriptors to use, for open files and directories together. Default: the process's hard limit
        /// (RLIMIT_NOFILE), 262,144 at most, less 256 for others.
        public var descriptorLimit: Int?
        /// Most memory for what the guest knows and has open, bytes.
        public var memoryLimit = 128 << 20
        /// Whether the guest may make device nodes. A whiteout of overlayfs is none.
        public var allowsDevices = false
        /// Called after each request, on its thread: its operation's number (linux/fuse.h), and how long it took in nanoseconds.
        public var onRequest: (@Sendable (_ opcode: UInt32, _ nanoseconds: UInt64) -> Void)?
        public init() {}
    }

    let proc: OwnedDescriptor
    let options: Options
    let memory: MemoryBudget
    var nodes: NodeTable
    var handles: HandleTable
    var shares: [Share] = []
    var fileSystems: [FileSystem] = []
    /// The next number of a share or file system.
    var nextID: Int32 = 1
    /// The name of the file system whose files have the root's device number in the guest.
    var home: String?
    /// Whether the guest mounts each file system's directory as one of its own (FUSE_SUBMOUNTS).
    var submounts = true
    /// Whether SETXATTR has its longer form (FUSE_SETXATTR_EXT).
    var setxattrExtended = false
    /// Also the process's at the start, whatever it was before.
    private var umaskNow: mode_t = 0
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    /// A request's arguments and the answer to it; used under the lock.
    private let arguments: UnsafeMutableRawBufferPointer
    let answer: UnsafeMutableRawBufferPointer
    private let pathBuffer: UnsafeMutablePointer<CChar>
    /// The name of an extended attribute on the host.
    let attributeName: UnsafeMutableBufferPointer<CChar>

    /// - Parameter proc: the root of a procfs, for reopening O_PATH descriptors through `self/fd`.
    ///
    /// Changes the process: its descriptor limit is raised to the hard one. The process should have no supplementary groups: what is
    /// made for a guest's user would get access through them.
    public init(proc: consuming OwnedDescriptor, options: Options = Options()) throws(SystemError) {
        var limit = rlimit()
        try check("getrlimit", "RLIMIT_NOFILE", getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit))
        limit.rlim_cur = limit.rlim_max
        try check("setrlimit", "RLIMIT_NOFILE", setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit))
        umask(0)
        let most = max(64, options.descriptorLimit ?? min(Int(clamping: limit.rlim_max), 1 << 18) - 256)
        self.proc = proc
        self.options = options
        memory = MemoryBudget(options.memoryLimit)
        nodes = NodeTable(
            capacity: max(options.maximumNodes, 16), descriptorCapacity: most / 3, memory: memory)
        handles = HandleTable(capacity: most - most / 3)
        arguments = .allocate(byteCount: FuseLimits.message, alignment: 16)
        answer = .allocate(byteCount: FuseLimits.message, alignment: 16)
        pathBuffer = .allocate(capacity: 32)
        attributeName = .allocate(capacity: 512)
        mutex = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
    }

    deinit {
        nodes.clear()
        for share in shares { close(share.descriptor) }
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
        attributeName.deallocate()
        pathBuffer.deallocate()
        answer.deallocate()
        arguments.deallocate()
    }

    func locked<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return try body()
    }

    // MARK: Requests

    /// Serves one request.
    ///
    /// - Parameters:
    ///   - readable: the request's bytes, header first, in the guest's buffers.
    ///   - writable: where the answer goes.
    /// - Returns: the bytes written to `writable`; 0 where the request has no answer (FORGET), or none fits.
    public func handle(readable: UnsafeBufferPointer<iovec>, writable: UnsafeBufferPointer<iovec>) -> UInt32 {
        var reader = RequestReader(readable)
        let writer = ReplyWriter(writable)
        let total = reader.remaining
        guard let header = reader.take(fuse_in_header()) else { return writer.fail(unique: 0, .input) }
        guard Int(header.len) == total else { return writer.fail(unique: header.unique, .invalid) }
        guard let operation = FuseOperation(rawValue: header.opcode) else {
            return writer.fail(unique: header.unique, .notImplemented)
        }
        let begin = monotonicNanoseconds()
        defer { options.onRequest?(header.opcode, monotonicNanoseconds() - begin) }
        switch operation {
        case .read: return read(header, &reader, writer)
        case .write: return write(header, &reader, writer)
        case .forget, .batchForget:
            forget(header, &reader, batch: operation == .batchForget)
            return 0
        case .interrupt:
            // Requests are not interruptible: each is done in the time of a system call.
            return 0
        case .fsync, .fsyncdir, .fallocate, .lseek, .copyFileRange:
            return ioOutsideLock(operation, header, &reader, writer)
        default:
            return locked { serve(operation, header, &reader, writer) }
        }
    }

    private func serve(
        _ operation: FuseOperation, _ header: fuse_in_header, _ reader: inout RequestReader, _ writer: ReplyWriter
    ) -> UInt32 {
        guard let arguments = arguments.baseAddress, reader.remaining <= FuseLimits.message else {
            return writer.fail(unique: header.unique, .invalid)
        }
        let count = reader.take(into: arguments, reader.remaining)
        nodes.request &+= 1
        let request = FuseRequest(
            header: header, arguments: UnsafeRawBufferPointer(start: arguments, count: count),
            room: min(writer.payloadRoom, FuseLimits.message))
        do throws(FileError) {
            let length = try perform(operation, request)
            return writer.send(unique: header.unique, payload: UnsafeRawBufferPointer(rebasing: answer[..<length]))
        } catch {
            return writer.fail(unique: header.unique, error)
        }
    }

    /// Carries out a request; the answer's payload is in `answer`, its length is returned.
    private func perform(_ operation: FuseOperation, _ request: FuseRequest) throws(FileError) -> Int {
        switch operation {
        case .initialize: return try initialize(request)
        case .destroy: return destroy()
        case .lookup: return try lookup(request)
        case .getattr: return try getAttributes(request)
        case .setattr: return try setAttributes(request)
        case .access: return try access(request)
        case .statfs: return try fileSystemStatus(request)
        case .readlink: return try readLink(request)
        case .symlink: return try makeLink(request)
        case .mknod: return try makeNode(request)
        case .mkdir: return try makeDirectory(request)
        case .link: return try link(request)
        case .unlink: return try remove(request, directory: false)
        case .rmdir: return try remove(request, directory: true)
        case .rename: return try rename(request, extended: false)
        case .rename2: return try rename(request, extended: true)
        case .open: return try open(request)
        case .create: return try create(request)
        case .tmpfile: return try createUnnamed(request)
        case .release: return try release(request, directory: false)
        case .releasedir: return try release(request, directory: true)
        case .flush: return try flush(request)
        case .opendir: return try openDirectory(request)
        case .readdir: return try readDirectory(request, plus: false)
        case .readdirplus: return try readDirectory(request, plus: true)
        case .getxattr: return try getExtended(request)
        case .setxattr: return try setExtended(request)
        case .listxattr: return try listExtended(request)
        case .removexattr: return try removeExtended(request)
        case .syncfs: return try syncFileSystem(request)
        case .ioctl: throw FileError(ENOTTY)
        case .read, .write, .forget, .batchForget, .interrupt, .fsync, .fsyncdir, .fallocate, .lseek, .copyFileRange:
            throw .notImplemented
        }
    }

    // MARK: What operations share

    /// `self/fd/N` for use with `proc`; valid until the next call.
    func procPath(_ descriptor: Int32) -> UnsafePointer<CChar> {
        var digits = 1
        var rest = descriptor / 10
        while rest > 0 {
            digits += 1
            rest /= 10
        }
        _ = "self/fd/".withCString { strcpy(pathBuffer, $0) }
        var value = descriptor
        for index in stride(from: 8 + digits - 1, through: 8, by: -1) {
            pathBuffer[index] = CChar(48 + value % 10)
            value /= 10
        }
        pathBuffer[8 + digits] = 0
        return UnsafePointer(pathBuffer)
    }

    /// Sets the process's umask, which the host applies unless the directory has a default ACL.
    func useUmask(_ mask: UInt32) {
        let new = mode_t(mask & 0o777)
        if new == umaskNow { return }
        umask(new)
        umaskNow = new
    }

    /// Puts a structure of the wire into the answer; returns its length.
    func put<T: BitwiseCopyable>(_ value: T, at offset: Int = 0) -> Int {
        answer.storeBytes(of: value, toByteOffset: offset, as: T.self)
        return MemoryLayout<T>.size
    }
}

/// One request whose arguments were copied out of the guest's memory.
struct FuseRequest {
    let header: fuse_in_header
    let arguments: UnsafeRawBufferPointer
    /// Bytes that the answer may have after its header.
    let room: Int

    /// The structure that the arguments start with.
    func fixed<T: BitwiseCopyable>(_ type: T.Type) throws(FileError) -> T {
        guard arguments.count >= MemoryLayout<T>.size else { throw .invalid }
        return arguments.loadUnaligned(as: type)
    }

    /// The string at `offset`, and where the next one would start.
    func string(at offset: Int, longest: Int) throws(FileError) -> (UnsafePointer<CChar>, next: Int) {
        guard offset < arguments.count, let base = arguments.baseAddress else { throw .invalid }
        let length = strnlen((base + offset).assumingMemoryBound(to: CChar.self), arguments.count - offset)
        guard offset + length < arguments.count else { throw .invalid }
        guard length <= longest else { throw FileError(ENAMETOOLONG) }
        return ((base + offset).assumingMemoryBound(to: CChar.self), offset + length + 1)
    }

    /// The name of a directory entry at `offset`: a single component.
    func name(at offset: Int, last: Bool = true) throws(FileError) -> UnsafePointer<CChar> {
        let (name, next) = try string(at: offset, longest: FuseLimits.nameLength)
        guard isEntryName(name), !last || next == arguments.count else { throw .invalid }
        return name
    }
}

/// Whether a string can only be the name of an entry: not empty, not `.` or `..`, without `/`.
func isEntryName(_ name: UnsafePointer<CChar>) -> Bool {
    if name[0] == 0 || strchr(name, 47) != nil { return false }
    return !(name[0] == 46 && (name[1] == 0 || (name[1] == 46 && name[2] == 0)))
}
