import Glibc

extension Pod {
    /// Between two looks at the bundles.
    private static let bundleInterval = Duration.seconds(3)

    /// Deletes containers that do not run and whose bundles have been removed, and with the last one ends the pod. Returns when the
    /// pod has ended.
    ///
    /// An engine that has lost the process which watches a container removes the bundle and never asks for the container's deletion:
    /// podman does so without conmon. No command can use such a container any more, and the machine would stay.
    ///
    /// - Parameter forget: told the id of each.
    package func watchBundles(_ forget: @Sendable (String) -> Void) async {
        while finished.current == nil {
            try? await Task.sleep(for: Self.bundleInterval)
            for container in containers.values where !container.first.phase.isAlive {
                guard access("\(container.bundle)/config.json", F_OK) != 0, errno == ENOENT else { continue }
                logger.info("container \(container.id): deleted, its bundle \(container.bundle) is gone")
                guard (try? await remove(container.id)) != nil else { continue }
                forget(container.id)
                await shutdown()
            }
        }
    }
}
