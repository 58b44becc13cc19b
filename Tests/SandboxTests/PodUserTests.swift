import Glibc
import LinuxSystem
import Testing

@testable import Sandbox

@Suite struct PodUserTests {
    @Test func noTwoPodsHaveTheSameUser() throws {
        let file = "/tmp/martlet-users-\(getpid())"
        defer { unlink(file) }
        var jail = Configuration.Jail()
        (jail.firstUser, jail.users) = (3000, 3)
        var users: [PodUser] = try (0..<3).map { _ in try PodUser.take(jail, file: file) }
        #expect(Set(users.map(\.id)) == [3000, 3001, 3002])
        let error = #expect(throws: SandboxError.self) { try PodUser.take(jail, file: file) }
        #expect(error?.description.contains("all 3 users of jail.first_user and jail.users are taken") == true)
        // A pod that has ended gives its user back, whatever the file says.
        let free = users[1].id
        users.remove(at: 1)
        #expect(try PodUser.take(jail, file: file).id == free)
        withExtendedLifetime(users) {}
    }

    /// What a user namespace has is what its pods can run as.
    @Test(
        arguments: [
            ("0 0 4294967295\n", 2_000_000_000..<2_000_065_536), ("0 1000 1\n 1 100000 65536", 1..<65537),
            ("0 1000 1\n", 0..<1), ("0 100000 65536\n", 1..<65536), ("0 0 70000\n", 4464..<70000),
        ] as [(String, Range<UInt64>)])
    func idsComeFromTheUserNamespace(_ map: String, _ expected: Range<UInt64>) throws {
        #expect(IDMap(map).choose(2_000_000_000..<2_000_065_536) == expected)
    }
}
