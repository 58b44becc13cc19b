import Testing

/// Every test that runs containers, one after the other: each takes a machine's processors for itself.
@Suite(.serialized, .enabled(if: Lab.isReady || Lab.isDemanded, "\(Lab.obstacle ?? "ready")"))
enum Containers {}
