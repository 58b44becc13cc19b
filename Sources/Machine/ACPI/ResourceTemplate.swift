import LinuxSystem

extension AML {
    /// What hardware a device has (ACPI 6.3, 6.4).
    enum Resource {
        /// Registers in memory that can be read and written.
        case memory(address: UInt32, size: UInt32)
        /// Ports from `port` on.
        case ports(UInt16, count: UInt8)
        /// An interrupt of this device alone, signalled by a rising edge.
        case interrupt(gsi: UInt32)

        fileprivate var bytes: [UInt8] {
            var bytes: [UInt8]
            switch self {
            case .memory(let address, let size):
                // 32-bit fixed memory range: tag, length, read-write.
                bytes = [0x86, 9, 0, 1]
                bytes.append(littleEndian: address)
                bytes.append(littleEndian: size)
            case .ports(let port, let count):
                // I/O port: tag with length, all 16 bits are decoded, lowest and highest base.
                bytes = [0x47, 1]
                bytes.append(littleEndian: port)
                bytes.append(littleEndian: port)
                bytes += [1, count]
            case .interrupt(let gsi):
                // Extended interrupt: tag, length, consumer and edge (active high and exclusive are zeros), one number.
                bytes = [0x89, 6, 0, 0b0011, 1]
                bytes.append(littleEndian: gsi)
            }
            return bytes
        }
    }

    /// A buffer of resources, as `_CRS` answers it. Its end tag has the checksum 0, which means none.
    static func resources(_ resources: [Resource]) -> AML {
        buffer(resources.flatMap(\.bytes) + [0x79, 0])
    }
}
