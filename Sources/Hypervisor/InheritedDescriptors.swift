import CLinux
import Glibc
import LinuxSystem

/// The descriptors that a program is started with beside its standard ones, each for a role. A role's number is its place in
/// the list, from 3 on.
struct InheritedDescriptors<Role: Hashable & Sendable>: Sendable {
    static var first: Int { 3 }
    let roles: [Role]

    /// The role's number in the program's process.
    ///
    /// - Precondition: the role is one of `roles`.
    func number(of role: Role) -> Int {
        guard let index = roles.firstIndex(of: role) else { preconditionFailure("no descriptor \(role)") }
        return Self.first + index
    }

    /// A pair of connected stream sockets for each role: one end for the program, one for who serves it.
    func socketPairs() throws -> SocketPairs<Role> {
        var pairs: [Role: (ours: SharedDescriptor, theirs: SharedDescriptor)] = [:]
        for role in roles { pairs[role] = try SharedDescriptor.socketPair(SOCK_STREAM) }
        return SocketPairs(roles: roles, pairs: pairs)
    }
}

/// Both ends of the sockets that a program inherits.
struct SocketPairs<Role: Hashable & Sendable>: Sendable {
    fileprivate let roles: [Role]
    fileprivate let pairs: [Role: (ours: SharedDescriptor, theirs: SharedDescriptor)]

    /// The end that the program does not have.
    subscript(role: Role) -> SharedDescriptor {
        guard let pair = pairs[role] else { preconditionFailure("no socket \(role)") }
        return pair.ours
    }

    /// What the program is started with, from number 3 on.
    var inherited: [SharedDescriptor] { roles.compactMap { pairs[$0]?.theirs } }
}
