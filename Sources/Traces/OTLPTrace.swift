/// Spans as a collector takes them: an `ExportTraceServiceRequest` of the OpenTelemetry protocol in its JSON encoding
/// (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding): names in lower camel case, ids in hexadecimal, numbers of 64 bits
/// as text, enumerations as numbers.
public struct OTLPTrace: Sendable, Encodable {
    struct ResourceSpans: Sendable, Encodable {
        var resource: Resource
        var scopeSpans: [ScopeSpans]
    }

    struct Resource: Sendable, Encodable { var attributes: [Attribute] }

    struct ScopeSpans: Sendable, Encodable {
        var scope: Scope
        var spans: [Span]
    }

    struct Scope: Sendable, Encodable {
        var name: String
        var version: String
    }

    struct Span: Sendable, Encodable {
        var traceId: String
        var spanId: String
        var parentSpanId: String?
        var name: String
        var kind: Int
        var startTimeUnixNano: String
        var endTimeUnixNano: String
        var attributes: [Attribute]
        var status: Status?
    }

    struct Status: Sendable, Encodable {
        /// STATUS_CODE_ERROR.
        var code = 2
        var message: String
    }

    struct Attribute: Sendable, Encodable {
        struct Value: Sendable, Encodable {
            var stringValue: String?
            var intValue: String?
        }
        var key: String
        var value: Value

        init(_ key: String, _ text: String) { (self.key, value) = (key, Value(stringValue: text)) }
        init(_ key: String, _ number: Int32) { (self.key, value) = (key, Value(intValue: "\(number)")) }
    }

    let resourceSpans: [ResourceSpans]

    /// - Parameter version: Martlet's.
    public init(_ spans: [FinishedSpan], version: String) {
        let processes = Dictionary(grouping: spans, by: \.process).sorted { $0.key.pid < $1.key.pid }
        resourceSpans = processes.map { process, spans in
            var own = [Attribute("service.name", process.name)]
            if process != .agent { own.append(Attribute("process.pid", process.pid)) }
            return ResourceSpans(
                resource: Resource(attributes: own),
                scopeSpans: [ScopeSpans(scope: Scope(name: "martlet", version: version), spans: spans.map(Span.init))])
        }
    }

    /// JSON.
    public func bytes() throws -> [UInt8] { try traceJSON(self) }
}

extension OTLPTrace.Span {
    fileprivate init(_ span: FinishedSpan) {
        (traceId, spanId) = (span.traceID, span.spanID)
        parentSpanId = span.parentID.isEmpty ? nil : span.parentID
        (name, kind) = (span.name, span.kind.rawValue)
        (startTimeUnixNano, endTimeUnixNano) = ("\(span.start)", "\(span.end)")
        attributes = span.attributes.sorted { $0.key < $1.key }.map { OTLPTrace.Attribute($0.key, $0.value) }
        status = span.error.isEmpty ? nil : OTLPTrace.Status(message: span.error)
    }
}
