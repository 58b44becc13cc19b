#if Libvirt
    import CLinux
    import Glibc
    import LinuxSystem

    /// The guest's serial port: QEMU connects to it first, then whoever looks at the console through libvirt (`virsh console`). Each
    /// gets what the guest prints from then on. What these type is dropped: the guest listens to nobody there.
    final class LibvirtConsole: Sendable {
        /// What the guest prints.
        let output: SharedDescriptor
        private let listener: SharedDescriptor

        init(_ sockets: LibvirtSockets) throws {
            listener = try sockets.listen("console")
            let pipe = try SharedDescriptor.pipe()
            output = pipe.read
            let feed = pipe.write
            try startThread("libvirt console") { [listener] in Self.pass(listener, feed) }
        }

        /// Listens no more: the console ends with QEMU, or now where that has not come.
        func close() { shutdown(listener.raw, Int32(SHUT_RDWR)) }

        /// Passes on until QEMU ends.
        private static func pass(_ listener: SharedDescriptor, _ feed: SharedDescriptor) {
            // The first is QEMU's.
            var peers: [SharedDescriptor] = []
            var isListening = true
            var buffer = [UInt8](repeating: 0, count: 4096)
            while true {
                var items = ([listener] + peers).map { pollfd(fd: $0.raw, events: Int16(POLLIN), revents: 0) }
                if !isListening { items[0].fd = -1 }
                if poll(&items, nfds_t(items.count), -1) < 0 && errno != EINTR { return }
                for (index, item) in items.enumerated().reversed() where item.revents != 0 && index > 0 {
                    let count = recv(item.fd, &buffer, buffer.count, Int32(MSG_DONTWAIT))
                    if count < 0 && [EINTR, EAGAIN].contains(errno) { continue }
                    if index == 1 {
                        if count <= 0 { return }
                        _ = write(feed.raw, buffer, count)
                        // Who does not read misses some.
                        for peer in peers.dropFirst() {
                            _ = send(
                                peer.raw, buffer, count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
                        }
                    } else if count <= 0 {
                        peers.remove(at: index - 1)
                    }
                }
                if items[0].revents != 0 {
                    let raw = martlet_accept(listener.raw)
                    if raw < 0 {
                        isListening = false
                        if peers.isEmpty { return }
                        // What QEMU has left is still to come.
                        continue
                    }
                    peers.append(SharedDescriptor(OwnedDescriptor(owning: raw)))
                }
            }
        }
    }
#endif
