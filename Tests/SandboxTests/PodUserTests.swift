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
}
