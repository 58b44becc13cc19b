import CLinux
import Glibc
import LinuxSystem

/// The extended attributes that an archive keeps: those that users set (`user.*`), and a program's capabilities.
enum ExtendedAttributes {
    static let capability = Array("security.capability".utf8)
    private static let userPrefix = Array("user.".utf8)
    /// The longest list and value that Linux has (XATTR_LIST_MAX, XATTR_SIZE_MAX).
    private static let longest = 64 << 10

    static func isUsers(_ name: [UInt8]) -> Bool { name.starts(with: userPrefix) }

    /// Those of an open file. One whose file system has none has none.
    static func read(_ file: Int32) -> [TarEntry.Attribute] {
        let count = martlet_flistxattr(file, nil, 0)
        guard count > 0 else { return [] }
        var list = [CChar](repeating: 0, count: Self.longest)
        let filled = martlet_flistxattr(file, &list, list.count)
        guard filled > 0 else { return [] }
        let names = list.prefix(filled).map { UInt8(bitPattern: $0) }.split(separator: 0).map(Array.init)
        // The format has no way to write a name with an equals sign.
        return names.filter { (isUsers($0) || $0 == capability) && !$0.contains(UInt8(ascii: "=")) }.sorted {
            $0.lexicographicallyPrecedes($1)
        }
        .compactMap { name in value(file, name).map { .init(name: name, value: $0) } }
    }

    private static func value(_ file: Int32, _ name: [UInt8]) -> [UInt8]? {
        var value = [UInt8](repeating: 0, count: longest)
        let count = name.withCName { martlet_fgetxattr(file, $0, &value, value.count) }
        // An empty value means in an archive that there is none.
        return count > 0 ? Array(value.prefix(count)) : nil
    }

    /// Sets one of an open file. A file system that has none, or not this one, goes without.
    static func set(_ attribute: TarEntry.Attribute, of file: Int32, as shown: @autoclosure () -> String)
        throws(SystemError)
    {
        let result = attribute.name.withCName {
            martlet_fsetxattr(file, $0, attribute.value, attribute.value.count, 0)
        }
        if result == 0 || Glibc.errno == EOPNOTSUPP || Glibc.errno == EPERM { return }
        throw SystemError.last("setxattr", shown())
    }
}
