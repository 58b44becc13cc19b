/// A container's passwd(5) and group(5), read by ourselves: the C library, linked statically, can't ask for users.
public struct Accounts: Sendable {
    public struct User: Sendable, Equatable {
        public var name: String
        public var uid: UInt32
        public var gid: UInt32
        public var home: String
    }

    private let users: [User]
    private let groups: [(gid: UInt32, members: [Substring])]

    /// From the texts of the two files; lines that can't be read are passed over.
    public init(passwd: String, group: String) {
        users = passwd.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: ":", omittingEmptySubsequences: false)
            guard fields.count >= 6, !fields[0].isEmpty, let uid = UInt32(fields[2]), let gid = UInt32(fields[3]) else {
                return nil
            }
            return User(name: String(fields[0]), uid: uid, gid: gid, home: String(fields[5]))
        }
        groups = group.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: ":", omittingEmptySubsequences: false)
            guard fields.count >= 4, let gid = UInt32(fields[2]) else { return nil }
            return (gid, fields[3].split(separator: ","))
        }
    }

    public func user(named name: String) -> User? { users.first { $0.name == name } }

    public func user(_ uid: UInt32) -> User? { users.first { $0.uid == uid } }

    /// The groups that name `user` as a member, but for its own.
    public func supplementaryGroups(of user: User) -> [UInt32] {
        groups.filter { $0.gid != user.gid && $0.members.contains { $0 == user.name } }.map(\.gid)
    }
}
