import Testing

@testable import OCISpec

/// Nothing that the specification knows is dropped in silence.
@Suite struct SchemaTests {
    private struct Field {
        /// honoured, refused or warned.
        var verdict: String
        var path: String
        var sample: JSONTree
    }

    private func fields() throws -> [Field] {
        try SchemaFields.list.split(separator: "\n").map { line in
            let words = line.split(separator: " ", omittingEmptySubsequences: true)
            let sample = try JSON.decode(JSONTree.self, from: Array(words[2].utf8), file: "sample")
            return Field(verdict: String(words[0]), path: String(words[1]), sample: sample)
        }
    }

    /// A configuration with what each object of it needs, to which one field more is set.
    private func document(with field: Field) throws -> JSONTree {
        let base = """
            {"ociVersion":"1.2.0","process":{"cwd":"/","args":["x"]},"root":{"path":"rootfs"},
             "linux":{"namespaces":[{"type":"ipc"},{"type":"mount"},{"type":"network"}]}}
            """
        var document = try JSON.decode(JSONTree.self, from: Array(base.utf8), file: "base")
        for (prefix, text) in Self.needed where field.path.hasPrefix(prefix) {
            let siblings = try JSON.decode(JSONTree.self, from: Array(text.utf8), file: prefix)
            if document[prefix] == nil { document[prefix] = siblings }
        }
        document[field.path] = field.sample
        return document
    }

    /// Outer objects first.
    private static let needed = [
        ("hooks.prestart[]", #"{"path":"/h"}"#), ("hooks.createRuntime[]", #"{"path":"/h"}"#),
        ("hooks.createContainer[]", #"{"path":"/h"}"#), ("hooks.startContainer[]", #"{"path":"/h"}"#),
        ("hooks.poststart[]", #"{"path":"/h"}"#), ("hooks.poststop[]", #"{"path":"/h"}"#),
        ("mounts[]", #"{"destination":"/m","type":"bind","source":"/s"}"#),
        ("mounts[].uidMappings[]", #"{"containerID":0,"hostID":0,"size":1}"#),
        ("mounts[].gidMappings[]", #"{"containerID":0,"hostID":0,"size":1}"#),
        ("process.capabilities", #"{"permitted":["CAP_CHOWN"],"inheritable":["CAP_CHOWN"]}"#),
        ("process.consoleSize", #"{"height":1,"width":1}"#),
        ("process.ioPriority", #"{"class":"IOPRIO_CLASS_BE","priority":1}"#),
        ("process.scheduler", #"{"policy":"SCHED_OTHER"}"#),
        ("process.rlimits[]", #"{"type":"RLIMIT_CPU","hard":1,"soft":1}"#),
        ("linux.devices[]", #"{"path":"/dev/x","type":"c","major":1,"minor":3}"#),
        ("linux.uidMappings[]", #"{"containerID":0,"hostID":0,"size":1}"#),
        ("linux.gidMappings[]", #"{"containerID":0,"hostID":0,"size":1}"#),
        ("linux.resources.devices[]", #"{"allow":true}"#),
        ("linux.resources.blockIO.weightDevice[]", #"{"major":1,"minor":1}"#),
        ("linux.resources.blockIO.throttleReadBpsDevice[]", #"{"major":1,"minor":1,"rate":1}"#),
        ("linux.resources.blockIO.throttleWriteBpsDevice[]", #"{"major":1,"minor":1,"rate":1}"#),
        ("linux.resources.blockIO.throttleReadIOPSDevice[]", #"{"major":1,"minor":1,"rate":1}"#),
        ("linux.resources.blockIO.throttleWriteIOPSDevice[]", #"{"major":1,"minor":1,"rate":1}"#),
        ("linux.resources.hugepageLimits[]", #"{"pageSize":"2MB","limit":1}"#),
        ("linux.resources.network.priorities[]", #"{"name":"x","priority":1}"#),
        ("linux.seccomp", #"{"defaultAction":"SCMP_ACT_ALLOW"}"#),
        ("linux.seccomp.syscalls[]", #"{"names":["x"],"action":"SCMP_ACT_LOG"}"#),
        ("linux.seccomp.syscalls[].args[]", #"{"index":0,"value":0,"op":"SCMP_CMP_EQ"}"#),
        ("linux.personality", #"{"domain":"LINUX"}"#),
    ]

    @Test func everyFieldIsHonouredRefusedOrWarnedOf() throws {
        let fields = try fields()
        #expect(fields.count == 174)
        for field in fields {
            let text = try JSON.encode(try document(with: field))
            let spec = try JSON.decode(Spec.self, from: text, file: field.path)
            let again = try JSON.decode(JSONTree.self, from: JSON.encode(spec), file: "written")
            #expect(again[field.path] == field.sample, "\(field.path) is dropped when it is read")
            let found = spec.unsupported().map { ($0.field.withoutIndexes, $0.verdict) }
            if field.verdict == "honoured" {
                #expect(found.isEmpty, "\(field.path): \(found)")
            } else {
                let verdict = field.verdict == "refused" ? Unsupported.Verdict.refuse : .warn
                let named = found.contains { $1 == verdict && (field.path + ".").hasPrefix($0) }
                #expect(named, "\(field.path) is not \(field.verdict): \(found)")
            }
        }
    }
}

extension String {
    /// `linux.devices[3].major` → `linux.devices[].major`
    fileprivate var withoutIndexes: String {
        split(separator: "[", omittingEmptySubsequences: false).enumerated().map { index, part in
            index == 0 ? String(part) : "[" + part.drop(while: \.isNumber)
        }.joined()
    }
}

/// Any JSON, with its parts by path.
private indirect enum JSONTree: Codable, Equatable {
    case object([String: JSONTree])
    case list([JSONTree])
    case text(String)
    case number(Int64)
    case truth(Bool)

    init(from decoder: any Decoder) throws {
        let value = try decoder.singleValueContainer()
        if let object = try? value.decode([String: JSONTree].self) {
            self = .object(object)
        } else if let list = try? value.decode([JSONTree].self) {
            self = .list(list)
        } else if let text = try? value.decode(String.self) {
            self = .text(text)
        } else if let truth = try? value.decode(Bool.self) {
            self = .truth(truth)
        } else {
            self = .number(try value.decode(Int64.self))
        }
    }

    func encode(to encoder: any Encoder) throws {
        var value = encoder.singleValueContainer()
        switch self {
        case .object(let object): try value.encode(object)
        case .list(let list): try value.encode(list)
        case .text(let text): try value.encode(text)
        case .number(let number): try value.encode(number)
        case .truth(let truth): try value.encode(truth)
        }
    }

    /// `a.b[]` is the first element of the list b in a; `a.b{}` the entry `key` of b.
    subscript(path: String) -> JSONTree? {
        get { Self.keys(path).reduce(self) { $0?[key: $1] } }
        set { if let newValue { set(Self.keys(path)[...], newValue) } }
    }

    private static func keys(_ path: String) -> [String] {
        path.split(separator: ".").flatMap { part -> [String] in
            var name = part
            var rest: [String] = []
            while name.hasSuffix("[]") || name.hasSuffix("{}") {
                rest.insert(name.hasSuffix("[]") ? "[]" : "key", at: 0)
                name = name.dropLast(2)
            }
            return [String(name)] + rest
        }
    }

    private subscript(key key: String) -> JSONTree? {
        switch self {
        case .object(let object): object[key]
        case .list(let list): key == "[]" ? list.first : nil
        default: nil
        }
    }

    private mutating func set(_ keys: ArraySlice<String>, _ value: JSONTree) {
        guard let key = keys.first else {
            self = value
            return
        }
        var child = self[key: key] ?? .object([:])
        child.set(keys.dropFirst(), value)
        if key == "[]" {
            if case .list(let list) = self { self = .list([child] + list.dropFirst()) } else { self = .list([child]) }
        } else {
            var object: [String: JSONTree] = [:]
            if case .object(let own) = self { object = own }
            object[key] = child
            self = .object(object)
        }
    }
}
