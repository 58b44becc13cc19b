import Glibc

/// Packets from the guest.
extension VsockDevice {
    func receiveFromGuest(_ budget: inout Int) {
        do throws(QueueError) {
            while budget > 0, replies.count < Self.replyLimit, try transmit.next() {
                budget -= 1
                handle(transmit.readable, Int(transmit.readableBytes))
                transmit.complete(written: 0)
            }
        } catch {
            fail(Self.transmitQueue, error)
        }
    }

    private func handle(_ chain: UnsafeBufferPointer<iovec>, _ bytes: Int) {
        // Too short to contain the address for a reply.
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
        case .connecting: completeConnect(connection, operation)
        case .established: handle(connection, operation, header, chain)
        case .draining: break
        }
    }

    private func completeConnect(_ connection: VsockConnection, _ operation: VsockHeader.Operation) {
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
        // Each packet carries credit, so a stream that waited for credit can go on.
        updateInterest(connection)
    }

    private func shutDown(_ connection: VsockConnection, _ flags: UInt32) {
        if flags & VsockHeader.shutdownReceive != 0, !connection.guestReceivesNoMore {
            connection.guestReceivesNoMore = true
            connection.outgoing.subtract([.data, .creditRequest])
            // The host's writes to its end fail from now on.
            Glibc.shutdown(connection.socket.raw, Int32(SHUT_RD))
        }
        if flags & VsockHeader.shutdownSend != 0 { connection.guestSendsNoMore = true }
        // The guest has closed the connection. It forgets it when it gets RST (virtio 1.2, 5.10.6.6).
        if connection.guestReceivesNoMore, connection.guestSendsNoMore { return reset(connection) }
        forwardShutdown(connection)
    }

    /// Forwards the guest's shutdown of sending to the host socket, after all bytes before it.
    private func forwardShutdown(_ connection: VsockConnection) {
        guard connection.guestSendsNoMore, connection.buffer.isEmpty, !connection.hostIsShutDown else { return }
        connection.hostIsShutDown = true
        Glibc.shutdown(connection.socket.raw, Int32(SHUT_WR))
    }

    private func data(_ connection: VsockConnection, _ chain: UnsafeBufferPointer<iovec>, _ length: Int) {
        guard !connection.guestSendsNoMore, UInt32(length) <= connection.credit else { return reset(connection) }
        connection.received &+= UInt32(length)
        bytesFromGuest &+= UInt64(length)
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
        queueCreditUpdate(connection)
    }

    private func queueCreditUpdate(_ connection: VsockConnection) {
        guard connection.needsCreditUpdate else { return }
        connection.outgoing.insert(.creditUpdate)
        enqueue(connection)
    }

    /// Writes as much as the host socket takes now.
    func flush(_ connection: VsockConnection) {
        var gone = false
        var written = 0
        connection.buffer.drain { vectors, count in
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
        queueCreditUpdate(connection)
        forwardShutdown(connection)
    }
}
