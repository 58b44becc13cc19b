/// Something of this host that is not as it should be.
public struct Finding: Sendable, Equatable, Codable {
    public enum Severity: String, Sendable, Codable {
        /// Pods don't run, or not as the configuration says.
        case fault
        /// Pods run, but slower, or something lies about.
        case advice
    }

    public var severity: Severity
    /// What it is about: `configuration`, `kvm`, `template 1cpu-512mib-…`.
    public var subject: String
    public var problem: String
    /// A command, or what to do.
    public var remedy: String

    init(_ severity: Severity, _ subject: String, _ problem: String, remedy: String) {
        (self.severity, self.subject, self.problem, self.remedy) = (severity, subject, problem, remedy)
    }
}
