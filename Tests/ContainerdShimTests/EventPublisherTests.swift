import Logging
import Sandbox
import Testing

@testable import Shim

@Suite struct EventPublisherTests {
    /// OOM is the guest's to cause, an exit is not: while containerd is away, only what has an end is kept.
    @Test func whatTheGuestCausesIsNotKeptForEver() async {
        let publisher = EventPublisher(
            address: "/nonexistent/containerd.sock", namespace: "test", logger: Logger(label: "test"))
        for _ in 0..<3000 { publisher.publish(.outOfMemory(container: "c")) }
        #expect(publisher.count == 1024)
        publisher.publish(.exited(container: "c", exec: "", pid: 1, ExitRecord(status: 137, at: 0)))
        #expect(publisher.count == 1025)
        await publisher.finish(within: .milliseconds(10))
    }
}
