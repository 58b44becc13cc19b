import Glibc
import LinuxSystem
import Sandbox

/// What an argument of `martlet pod cp` names.
enum CopyLocation: Equatable {
    /// A path of the host, absolute.
    case host(String)
    /// An archive on standard input or output.
    case archive
    /// A path in a container of a pod, or in a container; absolute.
    case container(name: String, path: String)

    /// - Parameters:
    ///   - argument: `NAME:PATH`, `-`, or a path. One that begins with `/` or `.` is the host's, also with a colon in it.
    ///   - directory: what relative paths of the host begin at.
    init(_ argument: String, directory: String) throws(SandboxError) {
        if argument.isEmpty { throw .invalid("a path is empty") }
        if argument.utf8.contains(0) { throw .invalid("a path has a zero byte in it") }
        if argument == "-" {
            self = .archive
        } else if let colon = argument.utf8.firstIndex(of: UInt8(ascii: ":")),
            !["/", "."].contains(argument.first), colon > argument.startIndex
        {
            let path = String(argument[argument.utf8.index(after: colon)...])
            self = .container(name: String(argument[..<colon]), path: path.hasPrefix("/") ? path : "/" + path)
        } else {
            self = .host(argument.hasPrefix("/") ? argument : directory + "/" + argument)
        }
    }
}

/// Finds the container that `martlet pod cp` means.
struct ContainerFinder {
    let root: String

    /// - Parameters:
    ///   - name: of a pod (its id, or the beginning of one that no other pod's id has), or a container's id.
    ///   - container: of a container in the pod; nil: the pod has one only.
    /// - Returns: the container's id, and the socket of its pod's server.
    func find(_ name: String, container: String?) async throws -> (id: String, socket: String) {
        let pods = PodList.all(root: root)
        do {
            let pod = try PodList.find(name, in: pods)
            let inspection = try await PodInspection(pod: pod.id, root: root)
            return (try Self.choose(try await inspection.containers().map(\.id), container, in: pod.id), pod.socket)
        } catch SandboxError.notFound {
            guard container == nil else { throw SandboxError.notFound("pod \(name)") }
        }
        for pod in pods where pod.isRunning {
            // One may end meanwhile.
            guard let inspection = try? await PodInspection(pod: pod.id, root: root),
                let containers = try? await inspection.containers()
            else { continue }
            if containers.contains(where: { $0.id == name }) { return (name, pod.socket) }
        }
        throw SandboxError.notFound("pod or container \(name)")
    }

    /// The container of a pod that is meant.
    ///
    /// - Throws: `SandboxError` that names the pod's containers.
    static func choose(_ ids: [String], _ wanted: String?, in pod: String) throws(SandboxError) -> String {
        let list = ids.map { printable($0) }.joined(separator: ", ")
        if let wanted {
            if ids.contains(wanted) { return wanted }
            let found = ids.filter { !wanted.isEmpty && $0.hasPrefix(wanted) }
            guard found.count < 2 else {
                throw .invalid("container \(wanted): \(found.count) containers of pod \(pod) begin so: \(list)")
            }
            guard let id = found.first else {
                throw .invalid("container \(wanted): not in pod \(pod), which has: \(list)")
            }
            return id
        }
        guard let id = ids.first else { throw .wrongState("pod \(pod) has no container") }
        guard ids.count == 1 else {
            throw .invalid("pod \(pod) has several containers, name one by --container: \(list)")
        }
        return id
    }
}
