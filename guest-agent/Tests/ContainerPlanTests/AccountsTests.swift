import Testing

@testable import ContainerPlan

@Suite struct AccountsTests {
    let accounts = Accounts(
        passwd: """
            root:x:0:0:root:/root:/bin/sh
            # a comment
            broken:x:notanumber:1::/:
            toobig:x:4294967296:1::/:
            short:x:5
            www:x:33:33:www:/var/www:/usr/sbin/nologin
            nohome:x:40:40:::
            """,
        group: """
            root:x:0:
            www:x:33:www
            ssl:x:100:root,www
            wwwish:x:101:wwwx
            adm:x:102:www
            """)

    @Test func usersAreFoundByNameAndNumber() {
        #expect(accounts.user(named: "www") == .init(name: "www", uid: 33, gid: 33, home: "/var/www"))
        #expect(accounts.user(0)?.home == "/root")
        #expect(accounts.user(40)?.home == "")
        #expect(accounts.user(named: "nobody") == nil)
    }

    @Test func linesThatCanNotBeReadArePassedOver() {
        for name in ["broken", "toobig", "short", "# a comment", ""] { #expect(accounts.user(named: name) == nil) }
    }

    @Test func groupsNameTheirMembers() throws {
        let user = try #require(accounts.user(named: "www"))
        #expect(accounts.supplementaryGroups(of: user) == [100, 102])
    }

    @Test func noFilesHaveNoUsers() {
        #expect(Accounts(passwd: "", group: "").user(0) == nil)
    }
}
