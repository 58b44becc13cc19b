import Testing

extension Scene {
    /// Makes the template of a pod of the configuration's size.
    ///
    /// - Parameter global: options of the command, as `configuration` makes them.
    func makeTemplate(_ global: [String]) throws {
        let made = try Command(
            Lab.martlet, global + ["template", "create"], environment: Lab.environment
        ).finish(within: .seconds(120 * Lab.patience))
        try #require(made.code == 0, "\(made.errorText)")
    }
}
