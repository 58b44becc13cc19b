import Testing

@testable import OCISpec

func decode(_ text: String) throws -> Spec {
    try JSON.decode(Spec.self, from: Array(text.utf8), file: "config.json")
}

func message(_ text: String) -> String {
    do {
        _ = try decode(text)
        return "decoded"
    } catch {
        return "\(error)"
    }
}

@Suite struct SpecDecodingTests {
    @Test func aSpecSurvivesTheWayThroughJSON() throws {
        let spec = Spec.standard()
        let bytes = try JSON.encode(spec, indented: true)
        #expect(try JSON.decode(Spec.self, from: bytes, file: "config.json") == spec)
        #expect(try JSON.encode(spec, indented: true) == bytes, "the order of keys is stable")
    }

    @Test func missingAndNullAreEmpty() throws {
        let spec = try decode(#"{"ociVersion":"1.0.2","process":{"cwd":"/","args":["a"],"env":null},"mounts":null}"#)
        #expect(spec.mounts == [])
        #expect(spec.process?.env == [])
        #expect(spec.process?.user == User())
        #expect(spec.process?.terminal == false)
        #expect(spec.linux == nil)
    }

    @Test func everyPropertyOfResourcesIsRead() throws {
        let text = #"""
            {"ociVersion":"1.2.0","linux":{"resources":{
            "devices":[{"allow":true,"type":"c","major":10,"minor":229,"access":"rwm"}],
            "memory":{"limit":536870912,"reservation":-1,"swap":1,"swappiness":0,"disableOOMKiller":false},
            "cpu":{"shares":1024,"quota":-1,"burst":5,"period":500000,"realtimeRuntime":950000,"cpus":"2-3","mems":"0-7"},
            "pids":{"limit":32771},
            "blockIO":{"weight":10,"weightDevice":[{"major":8,"minor":0,"weight":500}],
            "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":18446744073709551615}]},
            "hugepageLimits":[{"pageSize":"2MB","limit":9223372036854772000}],
            "network":{"classID":1048577,"priorities":[{"name":"eth0","priority":500}]},
            "rdma":{"mlx5_1":{"hcaHandles":3,"hcaObjects":10000}},
            "unified":{"io.max":"259:0 rbps=2097152"}}}}
            """#
        let resources = try #require(try decode(text).linux?.resources)
        var rule = Linux.Resources.DeviceRule(allow: true, access: "rwm")
        (rule.type, rule.major, rule.minor) = ("c", 10, 229)
        #expect(resources.devices == [rule])
        #expect(resources.memory?.limit == 536_870_912)
        #expect(resources.memory?.reservation == -1)
        #expect(resources.cpu?.quota == -1)
        #expect(resources.cpu?.cpus == "2-3")
        #expect(resources.pids?.limit == 32771)
        #expect(resources.blockIO?.throttleReadBpsDevice.first?.rate == .max)
        #expect(resources.hugepageLimits.first?.pageSize == "2MB")
        #expect(resources.network?.priorities.first?.priority == 500)
        #expect(resources.rdma["mlx5_1"]?.hcaObjects == 10000)
        #expect(resources.unified["io.max"] == "259:0 rbps=2097152")
    }

    @Test(arguments: [
        (
            #"{"ociVersion":"1.2.0","process":{"cwd":"/","args":["a","b",3]}}"#,
            "config.json: process.args[2]: expected a string, found number"
        ),
        (
            #"{"ociVersion":"1.2.0","process":{"cwd":"/","args":"a"}}"#,
            "config.json: process.args: expected a list, found a string"
        ),
        (
            #"{"ociVersion":"1.2.0","process":{"cwd":"/","terminal":"yes"}}"#,
            "config.json: process.terminal: expected true or false, found a string"
        ),
        (#"{"ociVersion":"1.2.0","process":[]}"#, "config.json: process: expected an object, found an array"),
        (#"{"ociVersion":"1.2.0","root":{}}"#, "config.json: root.path: missing"),
        ("{}", "config.json: ociVersion: missing"),
        ("[]", "config.json: expected an object, found an array"),
        (
            #"{"ociVersion":"1.2.0","annotations":{"a":1}}"#,
            "config.json: annotations.a: expected a string, found number"
        ),
        (
            #"{"ociVersion":"1.2.0","process":{"cwd":"/","user":{"uid":-1}}}"#,
            "config.json: process.user.uid: the number -1 does not fit"
        ),
        (
            #"{"ociVersion":"1.2.0","process":{"cwd":"/","user":{"uid":4294967296}}}"#,
            "config.json: process.user.uid: the number 4294967296 does not fit"
        ),
        (
            #"{"ociVersion":"1.2.0","process":{"cwd":"/","user":{"uid":1.5}}}"#,
            "config.json: process.user.uid: the number 1.5 does not fit"
        ),
        (
            #"{"ociVersion":"1.2.0","process":{"cwd":"/","oomScoreAdj":-5,"rlimits":[{"type":"a","soft":1,"hard":1e99}]}}"#,
            "config.json: process.rlimits[0].hard: the number 1e99 does not fit"
        ),
        (
            #"{"ociVersion":"1.2.0","process":{"cwd":"/","user":{"uid":"x"}}}"#,
            "config.json: process.user.uid: expected a whole number, found a string"
        ),
    ])
    func wrongTypesNameTheirField(_ text: String, _ expected: String) {
        let message = message(text)
        #expect(message.hasPrefix(expected), "\(message)")
    }

    @Test(arguments: [
        ("", "config.json: line 1, column 1: unexpected end of file, expected a value"),
        ("{\n  \"ociVersion\": x\n}", "config.json: line 2, column 17: unexpected character 'x', expected a value"),
        ("{\n  \"a\": 1,\n}", "config.json: line 3, column 1: unexpected character '}', expected a name in quotes"),
        ("{\"a\": [1 2]}", "config.json: line 1, column 10: unexpected character '2', expected ',' or ']'"),
        ("{\"a\": tru}", "config.json: line 1, column 10: unexpected character '}', expected 'true'"),
        ("{\"a\": \"b\n\"}", "config.json: line 1, column 9: unexpected end of line in a string"),
        ("{\"a\": \"b\\q\"}", "config.json: line 1, column 10: unexpected character 'q', expected an escape"),
        ("{} {}", "config.json: line 1, column 4: unexpected character '{' after the end of the object"),
        ("{\"a\": 1.}", "config.json: line 1, column 9: unexpected character '}', expected a digit"),
        ("{\"a\"", "config.json: line 1, column 5: unexpected end of file, expected ':'"),
    ])
    func brokenJSONHasALineAndAColumn(_ text: String, _ expected: String) {
        #expect(message(text) == expected)
    }

    @Test func textThatIsNotUTF8HasALineAndAColumn() {
        #expect(throws: SpecError.syntax(file: "f", line: 2, column: 2, reason: "not UTF-8 text")) {
            try JSON.decode(Spec.self, from: Array("{\n\"".utf8) + [0xff] + Array("\"}".utf8), file: "f")
        }
    }

    @Test func deepNestingIsAnError() {
        let deep = String(repeating: "[", count: 100_000)
        #expect(message("{\"ociVersion\":\(deep)").contains("nested deeper than 500 levels"))
    }

    @Test func messagesAreOneLine() {
        let text = message(#"{"ociVersion":"1.2.0","annotations":{"a\nb\u001b[2J":1}}"#)
        #expect(!text.contains("\n") && !text.contains("\u{1b}"), "\(text)")
    }
}
