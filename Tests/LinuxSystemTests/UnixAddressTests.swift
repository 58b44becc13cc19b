import Glibc
import LinuxSystem
import Testing

@Suite(.serialized) struct UnixAddressTests {
    /// Whatever the umask is: one that takes nothing away, and one that takes everything.
    @Test(arguments: [mode_t(0), 0o022, 0o777]) func onlyItsOwnerMayConnect(mask: mode_t) throws {
        let path = "/tmp/martlet-socket-\(getpid())-\(mask)"
        let before = umask(mask)
        defer {
            umask(before)
            unlink(path)
        }
        let listener = SharedDescriptor(try UnixAddress.listen(path))
        var facts = stat()
        #expect(lstat(path, &facts) == 0 && facts.st_mode == S_IFSOCK | 0o600)
        withExtendedLifetime(listener) {}
    }
}
