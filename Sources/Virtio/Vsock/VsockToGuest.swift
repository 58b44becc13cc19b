import Glibc

/// Packets to the guest.
extension VsockDevice {
    func sendToGuest(_ budget: inout Int) {
        do throws(QueueError) {
            while budget > 0, !replies.isEmpty || !ready.isEmpty, try receive.next() {
                budget -= 1
                // Too small for a header and a byte of data. It is returned empty, since it would block the ring.
                guard receive.writableBytes > UInt32(VsockHeader.size) else {
                    receive.complete(written: 0)
                    continue
                }
                if let written = fill(receive.writable, Int(receive.writableBytes)) {
                    receive.complete(written: written)
                } else {
                    receive.putBack()
                }
            }
        } catch {
            fail(Self.receiveQueue, error)
        }
    }

    /// Writes the next waiting packet into `chain`.
    ///
    /// - Returns: its length; nil when no packet waits after all.
    private func fill(_ chain: UnsafeBufferPointer<iovec>, _ room: Int) -> UInt32? {
        if let (hostPort, guestPort) = replies.popFirst() {
            var header = packet(.reset)
            header.sourcePort = hostPort
            header.destinationPort = guestPort
            return put(header, chain)
        }
        while let port = ready.popFirst() {
            guard let connection = connections[port] else { continue }
            connection.queued = false
            let written = fill(connection, chain, room)
            if connections[port] === connection {
                if !connection.outgoing.isEmpty { enqueue(connection) }
                updateInterest(connection)
            }
            if let written { return written }
            // The connection ended instead; send the RST that this queued.
            if !replies.isEmpty { return fill(chain, room) }
        }
        return nil
    }

    private func fill(_ connection: VsockConnection, _ chain: UnsafeBufferPointer<iovec>, _ room: Int) -> UInt32? {
        let outgoing = connection.outgoing
        if outgoing.contains(.request) {
            connection.outgoing.remove(.request)
            connection.requestSent = true
            return put(packet(.request, connection), chain)
        }
        guard connection.state == .established else {
            connection.outgoing = []
            return nil
        }
        if outgoing.contains(.data), connection.canReadHost, let written = fillData(connection, chain, room) {
            // Its header has updated the credit too.
            connection.outgoing.subtract(.creditUpdate)
            return written
        }
        guard connections[connection.hostPort] === connection else { return nil }
        if connection.outgoing.contains(.creditUpdate) {
            connection.outgoing.remove(.creditUpdate)
            return put(packet(.creditUpdate, connection), chain)
        }
        if connection.outgoing.contains(.creditRequest) {
            connection.outgoing.remove(.creditRequest)
            return put(packet(.creditRequest, connection), chain)
        }
        if connection.outgoing.contains(.shutdown) {
            connection.outgoing.remove(.shutdown)
            var header = packet(.shutdown, connection)
            header.flags = VsockHeader.shutdownSend
            return put(header, chain)
        }
        return nil
    }

    /// Reads from the host socket directly into the guest's buffers, as far as room and credit allow.
    private func fillData(_ connection: VsockConnection, _ chain: UnsafeBufferPointer<iovec>, _ room: Int) -> UInt32? {
        let limit = min(room - VsockHeader.size, Int(VsockHeader.maximumPayload), Int(connection.peerFree))
        guard limit > 0 else {
            connection.outgoing.remove(.data)
            connection.outgoing.insert(.creditRequest)
            return nil
        }
        let count = Vectors.slice(chain, skip: VsockHeader.size, count: limit, to: scratch)
        switch connection.read(scratch, count) {
        case .read(let bytes):
            connection.sent &+= UInt32(bytes)
            bytesToGuest &+= UInt64(bytes)
            // Less than asked for: the socket is empty, and its next bytes will cause an event.
            if bytes < limit { connection.outgoing.remove(.data) }
            var header = packet(.data, connection)
            header.length = UInt32(bytes)
            _ = put(header, chain)
            return UInt32(VsockHeader.size + bytes)
        case .empty:
            connection.outgoing.remove(.data)
        case .end:
            connection.outgoing.remove(.data)
            connection.outgoing.insert(.shutdown)
            connection.hostAtEnd = true
        case .gone:
            reset(connection)
        }
        return nil
    }

    private func packet(_ operation: VsockHeader.Operation) -> VsockHeader {
        var header = VsockHeader()
        header.sourceCID = Self.hostCID
        header.destinationCID = guestCID
        header.operation = operation.rawValue
        return header
    }

    private func packet(_ operation: VsockHeader.Operation, _ connection: VsockConnection) -> VsockHeader {
        var header = packet(operation)
        header.sourcePort = connection.hostPort
        header.destinationPort = connection.guestPort
        header.bufferSize = VsockConnection.bufferSize
        header.forwarded = connection.forwarded
        connection.advertisedForwarded = connection.forwarded
        return header
    }

    private func put(_ header: VsockHeader, _ chain: UnsafeBufferPointer<iovec>) -> UInt32 {
        withUnsafeTemporaryAllocation(byteCount: VsockHeader.size, alignment: 8) { raw in
            guard let base = raw.baseAddress else { return 0 }
            header.write(to: base)
            return UInt32(Vectors.copyIn(base, count: VsockHeader.size, to: chain))
        }
    }
}
