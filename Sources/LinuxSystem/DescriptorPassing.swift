import CLinux
import Glibc

extension OwnedDescriptor {
    /// Sends a message and copies of `descriptors` (SCM_RIGHTS) over a Unix socket.
    public func send(_ bytes: UnsafeRawBufferPointer, descriptors: [Int32] = []) throws(SystemError) {
        try check(
            "sendmsg", "",
            martlet_send_descriptors(raw, bytes.baseAddress, bytes.count, descriptors, Int32(descriptors.count), 0))
    }

    /// Receives a message of at most `bytes.count` bytes.
    ///
    /// - Returns: the number of bytes, 0 when the peer has closed the socket; and the descriptors.
    public func receive(
        into bytes: UnsafeMutableRawBufferPointer, maximumDescriptors: Int = 16
    ) throws(SystemError) -> (count: Int, descriptors: [SharedDescriptor]) {
        var numbers = [Int32](repeating: -1, count: maximumDescriptors)
        var count: Int32 = 0
        let received = try check(
            "recvmsg", "",
            martlet_receive_descriptors(
                raw, bytes.baseAddress, bytes.count, &numbers, Int32(maximumDescriptors), &count, 0))
        return (received, numbers.prefix(Int(count)).map { SharedDescriptor(OwnedDescriptor(owning: $0)) })
    }
}
