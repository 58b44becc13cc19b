import OCISpec

extension Unsupported {
    /// Throws for the first of `findings` that may not be run without.
    static func refuse(_ findings: [Unsupported], in file: String = "") throws {
        if let refused = findings.first(where: { $0.verdict == .refuse }) {
            throw SandboxError.unsupported("\(file)\(refused)")
        }
    }
}
