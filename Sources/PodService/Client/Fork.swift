import Glibc
import LinuxSystem
import OCISpec
import Sandbox

extension Runtime {
    /// `fork`: a copy of a running container, in a machine of its own, that goes on apart. The container stands still until its root
    /// file system has been copied.
    ///
    /// - Parameters:
    ///   - options: of the new container, which outlives the command.
    ///   - allowsSecrets: whether the container may have Secrets, which the copy has too.
    /// - Throws: what could not be done; the container goes on, and nothing is left of the new one.
    public func fork(_ id: String, _ options: CreateOptions, allowsSecrets: Bool) async throws {
        try requireRoot(for: "fork")
        let record = try await openForFork(id)
        if !allowsSecrets { try record.refuseSecrets() }
        try await asking {
            let held = try await HeldCheckpoint(
                container: id, socket: record.socket, path: imagePath(for: options.id))
            defer { held.end() }
            let copy = try await BundleCopy(options.bundle, of: record, hostname: hostname(options.id))
            held.release()
            do { try await start(options, from: held.path) } catch {
                copy.discard()
                throw error
            }
        }
    }

    /// `pod fork`: a copy of a running pod of the command line, with all of its containers.
    ///
    /// - Parameters:
    ///   - name: the pod's id, or the beginning of it.
    ///   - new: the id of the new pod's first container; the others have that and their own with a hyphen between.
    ///   - bundles: the directory, an absolute path, that gets the new containers' bundles, by their ids.
    ///   - allowsSecrets: whether a container may have Secrets, which the copy has too.
    /// - Returns: the new containers' ids.
    /// - Throws: what could not be done; the pod goes on, and nothing is left of the new one.
    public func fork(
        pod name: String, to new: String, bundles: String, allowsSecrets: Bool
    ) async throws -> [String] {
        try requireRoot(for: "pod fork")
        let pod = try PodList.find(name, in: PodList.all(root: root))
        let all = records.all().compactMap { records.read($0) }.filter { $0.podPath == pod.directory }
        if !allowsSecrets { for record in all { try record.refuseSecrets() } }
        var copies: [BundleCopy] = []
        do {
            return try await asking {
                let held = try await HeldCheckpoint(container: "", socket: pod.socket, path: imagePath(for: new))
                defer { held.end() }
                var restore = PodRestoreOptions(checkpoint: held.path)
                for container in try CheckpointSummary(directory: held.path).containers {
                    guard let record = all.first(where: { $0.id == container.id }) else {
                        throw SandboxError.unsupported(
                            "fork of container \(container.id), which the command line has not made,")
                    }
                    let id = restore.ids.isEmpty ? new : "\(new)-\(container.id)"
                    let bundle = "\(bundles)/\(try ContainerID(id).value)"
                    copies.append(try await BundleCopy(bundle, of: record, hostname: hostname(id)))
                    (restore.ids[container.id], restore.bundles[container.id]) = (id, bundle)
                }
                held.release()
                return try await restorePod(restore)
            }
        } catch {
            for copy in copies { copy.discard() }
            throw error
        }
    }

    /// The record of a container whose server lives.
    private func openForFork(_ id: String) async throws -> ContainerRecord {
        try await asking {
            let container = try await open(id)
            _ = try container.server()
            return container.record
        }
    }

    private func imagePath(for id: String) -> String { "\(root)/.fork-\(id)-\(getpid())" }

    private func hostname(_ id: String) -> String { String(id.prefix(63)) }

    private func start(_ options: CreateOptions, from image: String) async throws {
        var options = options
        options.checkpoint = image
        let new = try await NewContainer(options, self)
        do {
            try await new.create()
            try await new.start()
        } catch {
            await new.abandon()
            throw error
        }
    }
}

extension ContainerRecord {
    /// - Throws: `SandboxError.unsupported` for a container that mounts Secrets.
    fileprivate func refuseSecrets() throws {
        guard let secret = try Bundle(directory: bundle).spec.secretVolumes.first else { return }
        throw SandboxError.unsupported("fork of container \(id), which has \(secret) (--with-secrets allows it),")
    }
}
