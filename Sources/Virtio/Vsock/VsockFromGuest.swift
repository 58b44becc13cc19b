import Glibc

/// Packets from the guest.
extension VsockDevice {
    func takeFromGuest(_ budget: inout Int) {
        do throws(QueueError) {
            while budget > 0, replies.count < Self.replyLimit, try transmit.next() {
                budget -= 1
                take(transmit.readable, Int(transmit.readableBytes))
                transmit.complete(written: 0)
            }
        } catch {
            fail(Self.transmitQueue, error)
        }
    }

    private func take(_ chain: UnsafeBufferPointer<iovec>, _ bytes: Int) {
        // Too short to say whom an answer would go to.
        guard bytes >= VsockHeader.size else { return }
        let header = withUnsafeTemporaryAllocation(byteCount: VsockHeader.size, alignment: 8) { raw -> VsockHeader? in
            guard let base = raw.baseAddress else { return nil }
            _ = Vectors.copyOut(chain, to: base, count: VsockHeader.size)
            return VsockHeader(base)
        }
        guard let header else { return }
        let payload = bytes - VsockHeader.size
        let operation = VsockHeader.Operation(rawValue: header.operation)
        let known =
            header.sourceCID == guestCID && header.destinationCID == Self.hostCID
            && header.type == VsockHeader.stream
        guard known, let connection = connections[header.destinationPort], connection.state != .draining,
            connection.guestPort == header.sourcePort
        else {
            if operation != .reset { reply(hostPort: header.destinationPort, guestPort: header.sourcePort) }
            return
        }
        guard let operation, Int(header.length) <= payload, header.length <= VsockHeader.maximumPayload,
            operation == .data || header.length == 0
        else { return reset(connection) }
        connection.peerBufferSize = header.bufferSize
        connection.peerForwarded = header.forwarded
        switch connection.state {
        case .connecting: answer(connection, operation)
        case .established: handle(connection, operation, header, chain)
        case .draining: break
        }
    }

    private func answer(_ connection: VsockConnection, _ operation: VsockHeader.Operation) {
        switch operation {
        case .response where connection.requestSent: established(connection)
        case .reset: end(connection, .refused)
        default: reset(connection)
        }
    }

    private func handle(
        _ connection: VsockConnection, _ operation: VsockHeader.Operation, _ header: VsockHeader,
        _ chain: UnsafeBufferPointer<iovec>
    ) {
        switch operation {
        case .request, .response:
            return reset(connection)
        case .reset:
            return end(connection, .refused)
        case .shutdown:
            shutDown(connection, header.flags)
        case .data:
            data(connection, chain, Int(header.length))
        case .creditUpdate:
            break
        case .creditRequest:
            connection.outgoing.insert(.creditUpdate)
            enqueue(connection)
        }
        // Each packet brings credit: a stream that stood still for want of it goes on.
        updateInterest(connection)
    }

    private func shutDown(_ connection: VsockConnection, _ flags: UInt32) {
        if flags & VsockHeader.shutdownReceive != 0, !connection.guestReceivesNoMore {
            connection.guestReceivesNoMore = true
            connection.outgoing.subtract([.data, .creditRequest])
            // The host's writes fail from now on.
            Glibc.shutdown(connection.socket.raw, Int32(SHUT_RD))
        }
        if flags & VsockHeader.shutdownSend != 0 { connection.guestSendsNoMore = true }
        // The guest has closed; it forgets the connection when it hears RST (virtio 1.2, 5.10.6.6).
        if connection.guestReceivesNoMore, connection.guestSendsNoMore { return reset(connection) }
        sendEnd(connection)
    }

    /// Passes the guest's end of sending on once everything before it has gone.
    private func sendEnd(_ connection: VsockConnection) {
        guard connection.guestSendsNoMore, connection.buffer.isEmpty, !connection.hostToldEnd else { return }
        connection.hostToldEnd = true
        Glibc.shutdown(connection.socket.raw, Int32(SHUT_WR))
    }

    private func data(_ connection: VsockConnection, _ chain: UnsafeBufferPointer<iovec>, _ length: Int) {
        guard !connection.guestSendsNoMore, UInt32(length) <= connection.credit else { return reset(connection) }
        connection.received &+= UInt32(length)
        var written = 0
        if connection.buffer.isEmpty, length > 0 {
            let count = Vectors.slice(chain, skip: VsockHeader.size, count: length, to: scratch)
            switch connection.write(scratch, count) {
            case .wrote(let bytes): written = bytes
            case .full: break
            case .gone: return reset(connection)
            }
            connection.forwarded &+= UInt32(written)
        }
        if written < length {
            guard connection.buffer.append(chain, skip: VsockHeader.size + written, count: length - written)
            else { return reset(connection) }
        }
        giveCredit(connection)
    }

    private func giveCredit(_ connection: VsockConnection) {
        guard connection.owesCredit else { return }
        connection.outgoing.insert(.creditUpdate)
        enqueue(connection)
    }

    /// Writes what the host socket takes now.
    func flush(_ connection: VsockConnection) {
        var gone = false
        var written = 0
        connection.buffer.take { vectors, count in
            switch connection.write(vectors, count) {
            case .wrote(let bytes): written = bytes
            case .full: break
            case .gone: gone = true
            }
            return written
        }
        if connection.state == .draining {
            if gone || connection.buffer.isEmpty { remove(connection, .refused) }
            return
        }
        if gone {
            reply(hostPort: connection.hostPort, guestPort: connection.guestPort)
            return remove(connection, .refused)
        }
        connection.forwarded &+= UInt32(written)
        giveCredit(connection)
        sendEnd(connection)
    }
}
