import ArgumentParser
import Glibc
import Shim

do {
    let command = try ContainerdShim.parse()
    try await command.perform()
} catch let error where ContainerdShim.exitCode(for: error) == .success {
    ContainerdShim.exit(withError: error)
} catch {
    // containerd shows what is written here.
    let message = "\(ContainerdShim.message(for: error))\n"
    _ = message.withCString { write(STDERR_FILENO, $0, strlen($0)) }
    exit(1)
}
