import GuestSystem
public import OCISpec

/// Which devices a container may use: rules of which the last that fits decides, for reading, writing and making a node each
/// on its own.
public struct DeviceRules: Sendable, Equatable {
    public struct Rule: Sendable, Equatable {
        public var allow: Bool
        /// BPF_DEVCG_DEV_BLOCK, BPF_DEVCG_DEV_CHAR; nil: both.
        public var type: UInt32?
        /// nil: any.
        public var major: UInt32?
        /// nil: any.
        public var minor: UInt32?
        /// Of BPF_DEVCG_ACC_*.
        public var access: UInt32
    }

    // linux/bpf.h.
    static let block: UInt32 = 1
    static let character: UInt32 = 2
    static let makeNode: UInt32 = 1
    static let read: UInt32 = 2
    static let write: UInt32 = 4
    static let allAccess: UInt32 = 7

    /// In the order in which they are given; what none of them fits is denied.
    public var rules: [Rule]

    /// The rules of a specification, and after them those that every container has.
    public init(_ rules: [Linux.Resources.DeviceRule]) throws(AgentFailure) {
        var list: [Rule] = []
        for (index, rule) in rules.enumerated() {
            let field = "linux.resources.devices[\(index)]"
            let type: UInt32?
            switch rule.type {
            case "", "a": type = nil
            case "b": type = Self.block
            case "c": type = Self.character
            default: throw AgentFailure(.invalidArgument, "\(field).type: \"\(rule.type)\" is not a, b or c")
            }
            list.append(
                Rule(
                    allow: rule.allow, type: type, major: try Self.number(rule.major, "\(field).major"),
                    minor: try Self.number(rule.minor, "\(field).minor"),
                    access: try Self.access(rule.access, "\(field).access")))
        }
        self.rules = list + Self.always
    }

    /// Absent, and -1 as some engines write it: any.
    private static func number(_ value: Int64?, _ field: String) throws(AgentFailure) -> UInt32? {
        guard let value, value != -1 else { return nil }
        guard let number = UInt32(exactly: value), number < 1 << 20 else {
            throw AgentFailure(.invalidArgument, "\(field): \(value) is not a device number")
        }
        return number
    }

    private static func access(_ text: String, _ field: String) throws(AgentFailure) -> UInt32 {
        var access: UInt32 = 0
        for letter in text {
            switch letter {
            case "r": access |= read
            case "w": access |= write
            case "m": access |= makeNode
            default: throw AgentFailure(.invalidArgument, "\(field): \"\(text)\" is not of r, w and m")
            }
        }
        return access == 0 ? allAccess : access
    }

    /// What runc always allows too (libcontainer/specconv, AllowedDevices): making any node, and the devices without which
    /// programs do not run.
    static let always: [Rule] = {
        let usable: [(UInt32, UInt32?)] = [
            (1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, nil),
        ]
        return [Rule(allow: true, type: nil, major: nil, minor: nil, access: makeNode)]
            + usable.map { Rule(allow: true, type: character, major: $0, minor: $1, access: allAccess) }
    }()
}
