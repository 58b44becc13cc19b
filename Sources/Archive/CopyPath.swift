/// What the end of a path says about what is to be copied, as in cp(1) and `docker cp`.
struct CopyPath {
    let components: [String]
    /// It ends with a slash, `.` or `..`: it is to be a directory, and a link is followed to it.
    let isDirectory: Bool
    /// What is in the directory is meant, and not the directory: the path ends with `.` or `..`, or is the root.
    let isContents: Bool

    init(_ path: String) {
        let parts = path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).map {
            String(Substring($0))
        }
        let last = parts.last { !$0.isEmpty } ?? "."
        let endsWithDots = last == "." || last == ".."
        components = parts.filter { !$0.isEmpty && $0 != "." }
        isContents = endsWithDots || components.isEmpty
        isDirectory = isContents || parts.last?.isEmpty == true
    }

    var text: String { "/" + components.joined(separator: "/") }
    var parent: String { "/" + components.dropLast().joined(separator: "/") }
    /// The last component; `.` of the root.
    var name: String { components.last ?? "." }
}
