public import LinuxSystem

/// Why the state of a file server can't be saved or restored.
public struct FileStateError: StateFailure, Sendable, Equatable, CustomStringConvertible {
    public var description: String
    public init(_ description: String) { self.description = description }
}

/// What a guest knows of a file server: the numbers that it has, each with the name by which its file is found.
///
/// A file of it begins with a magic number and the format's version. Sections follow, each with its number and its length in bytes,
/// in this order: the session, the shares, the nodes, the handles.
struct ServerState: Equatable {
    /// What INIT agreed on, and what is of no single share.
    struct Session: Equatable {
        var submounts: Bool
        var setxattrExtended: Bool
        /// The name of the file system that has the root's device number; empty: none yet.
        var home: String
        /// The next number of a share or file system.
        var nextID: Int32
    }

    struct FileSystem: Equatable {
        var id: Int32
        var name: String
        var slot: Int
    }

    struct Share: Equatable {
        var id: Int32
        var name: String
        var fileSystem: Int32
        /// The node of its root.
        var slot: Int
    }

    /// A slot of the node table, used or not.
    struct Node: Equatable {
        enum Kind: UInt8 {
            case free = 0
            /// Leads nowhere: the guest has its number still.
            case stale
            /// The directory of a file system.
            case synthetic
            case file
        }
        var generation: UInt32
        var kind: Kind
        var lookups: UInt64 = 0
        /// Of a file: S_IFMT bits.
        var type: UInt32 = 0
        /// Of a file: the slot of the directory that it is in, and its name there. 0: it is the root of a share and in none.
        var parent = 0
        var name: [UInt8] = []
    }

    /// A slot of the handle table, used or not.
    struct Handle: Equatable {
        var generation: UInt32
        /// The slot of the node; 0: the handle is free.
        var node = 0
        /// Access mode, O_SYNC and O_DSYNC.
        var flags: Int32 = 0
    }

    var session: Session
    var fileSystems: [FileSystem]
    var shares: [Share]
    /// From the slot behind the root's on.
    var nodes: [Node]
    var handles: [Handle]

    /// The slot of the first of `nodes`.
    static let firstSlot = NodeTable.root + 1

    /// The node of a slot; nil where there is none.
    func node(_ slot: Int) -> Node? {
        let index = slot - Self.firstSlot
        return nodes.indices.contains(index) ? nodes[index] : nil
    }
}
