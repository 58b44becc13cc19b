import Glibc

/// A device's number as stat(2) has it, from and to its two parts (makedev(3)).
enum DeviceNumber {
    static func parts(_ number: dev_t) -> (major: UInt32, minor: UInt32) {
        let number = UInt64(number)
        return (
            UInt32(truncatingIfNeeded: number >> 8 & 0xfff | number >> 32 & 0xffff_f000),
            UInt32(truncatingIfNeeded: number & 0xff | number >> 12 & 0xffff_ff00)
        )
    }

    static func number(_ parts: (major: UInt32, minor: UInt32)) -> dev_t {
        let (major, minor) = (UInt64(parts.major), UInt64(parts.minor))
        let high = (major & 0xffff_f000) << 32 | (minor & 0xffff_ff00) << 12
        return dev_t(high | (major & 0xfff) << 8 | minor & 0xff)
    }
}
