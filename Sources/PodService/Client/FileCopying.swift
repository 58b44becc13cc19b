import Archive
import Glibc
import LinuxSystem
import Sandbox
import TTRPC
import TaskAPI

/// `martlet pod cp`: files between the host and a container of a pod.
public struct FileCopying: Sendable {
    /// What is copied, and where to: `NAME:PATH`, a path of the host, or `-` for an archive on standard input or output.
    public var source: String
    public var destination: String
    /// Which container of the pod; nil: the pod has one only.
    public var container: String?
    /// Whether owners are kept.
    public var keepsOwners: Bool
    /// Whether a symbolic link at the source is followed.
    public var followsLink: Bool

    public init(source: String, destination: String, container: String?, keepsOwners: Bool, followsLink: Bool) {
        (self.source, self.destination, self.container) = (source, destination, container)
        (self.keepsOwners, self.followsLink) = (keepsOwners, followsLink)
    }

    /// Copies.
    ///
    /// - Returns: what was left out, for the user: devices and fifos are not made on the host.
    public func run(_ runtime: Runtime) async throws -> [String] {
        try runtime.requireRoot(for: "pod cp")
        // A server that stops reading is an error to report.
        signal(SIGPIPE, SIG_IGN)
        let directory = try Self.workingDirectory()
        let from = try CopyLocation(source, directory: directory)
        let to = try CopyLocation(destination, directory: directory)
        let finder = ContainerFinder(root: runtime.root)
        return try await asking {
            switch (from, to) {
            case (.container(let name, let path), .host(let host)):
                let server = try await CopyServer(finder.find(name, container: container), path)
                return try await copyOut(server, to: host)
            case (.host(let host), .container(let name, let path)):
                let source = try Self.onHost { try CopySource(root: $0, path: host, followsLink: followsLink) }
                let server = try await CopyServer(finder.find(name, container: container), path)
                try await copyIn(source, server)
            case (.container(let name, let path), .archive):
                let server = try await CopyServer(finder.find(name, container: container), path)
                try await server.pack(into: Self.standard(STDOUT_FILENO), followsLink: followsLink)
            case (.archive, .container(let name, let path)):
                let server = try await CopyServer(finder.find(name, container: container), path)
                try await server.unpack(
                    from: Self.standard(STDIN_FILENO), keepsOwners: keepsOwners, isDirectory: true)
            case (.container, .container):
                throw SandboxError.unsupported("copying from one container to another")
            default: throw SandboxError.invalid("neither \(source) nor \(destination) is in a container: POD:/PATH")
            }
            return []
        }
    }

    // MARK: Out

    private func copyOut(_ server: CopyServer, to path: String) async throws -> [String] {
        let pipe = try PipeEnds()
        let (keepsOwners, followsLink) = (keepsOwners, followsLink)
        async let unpacked = onThread("unpack") { try Self.unpack(pipe.takeReading(), to: path, keepsOwners) }
        let packed: Result<Void, any Error>
        do {
            packed = .success(try await server.pack(into: pipe.takeWriting(), followsLink: followsLink))
        } catch {
            packed = .failure(error)
        }
        do {
            let leftOut = try await unpacked
            try packed.get()
            return leftOut
        } catch let error as ArchiveError {
            // An archive that breaks off does so since the server's side has failed.
            if case .malformed = error { try packed.get() }
            throw SandboxError(error)
        }
    }

    private static func unpack(_ archive: SharedDescriptor, to path: String, _ keepsOwners: Bool) throws -> [String] {
        let reader = TarReader(archive)
        let first = try reader.next()
        let destination = try CopyDestination(root: RootDirectory("/"), path: path, .place, first: first)
        var unpacker = Unpacker(into: destination, .host(keepsOwners: keepsOwners))
        try unpacker.unpack(reader, first: first)
        let (names, count) = unpacker.leftOut
        return names + (count > names.count ? ["and \(count - names.count) more"] : [])
    }

    // MARK: In

    private func copyIn(_ source: CopySource, _ server: CopyServer) async throws {
        let pipe = try PipeEnds()
        async let packed: Void = onThread("pack") {
            var packer = Packer(to: try pipe.takeWriting())
            try packer.pack(source)
        }
        var failure: (any Error)?
        do {
            try await server.unpack(from: pipe.takeReading(), keepsOwners: keepsOwners, isDirectory: false)
        } catch {
            failure = error
        }
        do { try await packed } catch let error as SystemError where error.errno == .brokenPipe {
            // The server tells why.
        } catch let error as ArchiveError {
            throw SandboxError(error)
        }
        if let failure { throw failure }
    }

    // MARK: The host

    private static func onHost<R>(_ body: (RootDirectory) throws -> R) throws -> R {
        do { return try body(RootDirectory("/")) } catch let error as ArchiveError { throw SandboxError(error) }
    }

    /// The command's own, which outlives the copy.
    private static func standard(_ number: Int32) throws -> SharedDescriptor {
        SharedDescriptor(OwnedDescriptor(owning: try check("dup", "\(number)", dup(number))))
    }

    private static func workingDirectory() throws -> String {
        var path = [CChar](repeating: 0, count: Int(PATH_MAX))
        guard getcwd(&path, path.count) != nil else { throw SystemError.last("getcwd") }
        return String(decoding: path.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// A path of a container, and the server of its pod.
private struct CopyServer {
    private let inspection: InspectionServiceClient
    private let socket: String
    private let container: String
    private let path: String

    init(_ found: (id: String, socket: String), _ path: String) async throws {
        inspection = InspectionServiceClient(try await TTRPCClient(unixPath: found.socket))
        (container, socket, self.path) = (found.id, found.socket, path)
    }

    func pack(into stream: SharedDescriptor, followsLink: Bool) async throws {
        try await copy(stream) { $0.pack = .with { $0.followsLink = followsLink } }
    }

    func unpack(from stream: SharedDescriptor, keepsOwners: Bool, isDirectory: Bool) async throws {
        try await copy(stream) {
            $0.unpack = .with { ($0.keepsOwners, $0.isDirectory) = (keepsOwners, isDirectory) }
        }
    }

    private func copy(
        _ stream: SharedDescriptor, _ direction: (inout PodCopyFilesRequest) -> Void
    ) async throws {
        let handed = try HandedProcesses.hand(stream: stream, to: socket)
        var request = PodCopyFilesRequest.with {
            $0.containerID = container
            $0.path = path
            $0.stream = HandedProcesses.streamName(handed.number)
        }
        direction(&request)
        defer { withExtendedLifetime(handed) {} }
        _ = try await inspection.copyFiles(request, timeout: TTRPCClient.noTimeout)
    }
}

extension SandboxError {
    fileprivate init(_ error: ArchiveError) {
        switch error {
        case .notFound, .malformed: self = .failed(error.description)
        case .invalid, .unsupported: self = .invalid(error.description)
        }
    }
}
