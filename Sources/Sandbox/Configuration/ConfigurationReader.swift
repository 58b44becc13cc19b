/// Reads typed settings from a tree, and finds keys that are unknown.
struct ConfigurationReader {
    private let tree: SettingTree
    private var known: Set<String> = []

    init(_ tree: SettingTree) { self.tree = tree }

    mutating func integer(
        _ key: String, _ range: ClosedRange<Int>, unit: String = "", into value: inout Int
    ) throws(ConfigurationError) {
        guard let setting = take(key) else { return }
        guard case .integer(let number) = setting.value else { throw wrong(key, setting, "a whole number") }
        guard range.contains(number) else {
            let unit = unit.isEmpty ? "" : " \(unit)"
            throw error(key, setting, "\(number) is not between \(range.lowerBound) and \(range.upperBound)\(unit)")
        }
        value = number
    }

    /// Reads a number for which 0 stands for none: it leaves the value unchanged.
    mutating func integer(
        _ key: String, _ range: ClosedRange<Int>, unit: String = "", zeroIsUnset: Bool, into value: inout Int?
    ) throws(ConfigurationError) {
        if tree.settings[key]?.value == .integer(0) {
            _ = take(key)
            return
        }
        var number = -1
        try integer(key, range, unit: unit, into: &number)
        if number >= 0 { value = number }
    }

    mutating func duration(
        _ key: String, _ range: ClosedRange<Int>, unit: String, _ make: (Int) -> Duration, into value: inout Duration
    ) throws(ConfigurationError) {
        var number: Int? = nil
        if tree.settings[key] != nil {
            var read = 0
            try integer(key, range, unit: unit, into: &read)
            number = read
        }
        if let number { value = make(number) }
    }

    mutating func boolean(_ key: String, into value: inout Bool) throws(ConfigurationError) {
        guard let setting = take(key) else { return }
        guard case .bool(let truth) = setting.value else { throw wrong(key, setting, "true or false") }
        value = truth
    }

    /// Reads a string. An empty one is an error; with `emptyIsUnset` it leaves the value unchanged.
    mutating func string(_ key: String, emptyIsUnset: Bool = false, into value: inout String?)
        throws(ConfigurationError)
    {
        guard let setting = take(key) else { return }
        guard case .string(let text) = setting.value else { throw wrong(key, setting, "a string") }
        if text.isEmpty {
            if emptyIsUnset { return }
            throw error(key, setting, "must not be empty")
        }
        try refuseControlCharacters(key, setting, text)
        value = text
    }

    /// Reads an absolute path, as `string` does.
    mutating func path(_ key: String, emptyIsUnset: Bool = false, into value: inout String?) throws(ConfigurationError)
    {
        try string(key, emptyIsUnset: emptyIsUnset, into: &value)
        if let setting = tree.settings[key], let path = value, case .string(path) = setting.value, !path.hasPrefix("/")
        {
            throw error(key, setting, "\"\(path)\" is not an absolute path")
        }
    }

    mutating func choice<Choice: RawRepresentable & CaseIterable>(
        _ key: String, refused: (value: String, reason: String)? = nil, into value: inout Choice
    ) throws(ConfigurationError) where Choice.RawValue == String {
        guard let setting = take(key) else { return }
        guard case .string(let text) = setting.value else { throw wrong(key, setting, "a string") }
        if let refused, text == refused.value { throw error(key, setting, "\"\(text)\" \(refused.reason)") }
        guard let choice = Choice(rawValue: text) else {
            let names = Choice.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")
            throw error(key, setting, "\"\(text)\" is none of \(names)")
        }
        value = choice
    }

    /// Reads a list of words without white space.
    mutating func words(_ key: String, into value: inout [String]) throws(ConfigurationError) {
        guard let setting = take(key) else { return }
        guard case .list(let items) = setting.value else { throw wrong(key, setting, "a list of strings") }
        var words: [String] = []
        for (index, item) in items.enumerated() {
            let place = "\(key)[\(index)]"
            guard case .string(let word) = item else {
                throw error(place, setting, "expected a string, found \(item.kind)")
            }
            if word.isEmpty || word.contains(where: \.isWhitespace) {
                throw error(place, setting, "\"\(word)\" is not one word")
            }
            try refuseControlCharacters(place, setting, word)
            words.append(word)
        }
        value = words
    }

    /// Refuses unknown keys and tables.
    ///
    /// - Throws: `ConfigurationError` for the first one by name.
    func refuseUnknown() throws(ConfigurationError) {
        for key in tree.settings.keys.sorted() where !known.contains(key) {
            if tree.tables.keys.contains(where: { key.hasPrefix($0 + ".") && !isKnownTable($0) }) { continue }
            throw ConfigurationError(subject: tree.settings[key]?.file ?? "", place: key, reason: "unknown key")
        }
        for table in tree.tables.keys.sorted() where !isKnownTable(table) {
            throw ConfigurationError(subject: tree.tables[table] ?? "", place: table, reason: "unknown table")
        }
    }

    private func isKnownTable(_ name: String) -> Bool { known.contains { $0.hasPrefix(name + ".") } }

    private mutating func take(_ key: String) -> SettingTree.Setting? {
        known.insert(key)
        return tree.settings[key]
    }

    /// Refuses tables in place of values.
    func refuseTables() throws(ConfigurationError) {
        for key in known.sorted() {
            if let file = tree.tables[key] {
                throw ConfigurationError(subject: file, place: key, reason: "is not a table")
            }
        }
    }

    private func refuseControlCharacters(
        _ key: String, _ setting: SettingTree.Setting, _ text: String
    ) throws(ConfigurationError) {
        if text.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7f }) {
            throw error(key, setting, "has a control character")
        }
    }

    private func wrong(_ key: String, _ setting: SettingTree.Setting, _ expected: String) -> ConfigurationError {
        error(key, setting, "expected \(expected), found \(setting.value.kind)")
    }

    private func error(_ key: String, _ setting: SettingTree.Setting, _ reason: String) -> ConfigurationError {
        ConfigurationError(subject: setting.file, place: key, reason: reason)
    }
}
