extension Spec {
    /// Validates the configuration.
    ///
    /// - Parameter file: the file's name in errors.
    /// - Throws: `SpecError.invalid` with all problems.
    public func validate(file: String = "config.json") throws(SpecError) {
        let problems = problems()
        if !problems.isEmpty { throw .invalid(file: file, problems) }
    }

    /// All invalid properties; empty when the configuration is valid by itself.
    public func problems() -> [SpecError.Problem] {
        var problems = Problems()
        if !ociVersion.hasPrefix("1.") || ociVersion.dropFirst(2).first?.isNumber != true {
            problems.add("ociVersion", "\"\(ociVersion)\" is not a version 1.x of the runtime specification")
        }
        if let process { process.collect("process", &problems) } else { problems.add("process", "missing") }
        if let root {
            problems.path("root.path", root.path)
        } else {
            problems.add("root", "missing")
        }
        if hostname.utf8.count > 64 { problems.add("hostname", "longer than 64 bytes") }
        problems.text("hostname", hostname)
        if domainname.utf8.count > 64 { problems.add("domainname", "longer than 64 bytes") }
        problems.text("domainname", domainname)
        for (index, mount) in mounts.enumerated() { mount.collect("mounts[\(index)]", &problems) }
        linux?.collect("linux", &problems)
        hooks?.collect("hooks", &problems)
        return problems.list
    }
}

extension Process {
    /// All invalid properties of a single process, for exec. Field names start with `name`.
    public func problems(_ name: String = "process") -> [SpecError.Problem] {
        var problems = Problems()
        collect(name, &problems)
        return problems.list
    }

    fileprivate func collect(_ name: String, _ problems: inout Problems) {
        if args.isEmpty { problems.add("\(name).args", "must not be empty") }
        if args.first == "" { problems.add("\(name).args[0]", "must not be empty") }
        for (index, argument) in args.enumerated() { problems.text("\(name).args[\(index)]", argument) }
        problems.absolute("\(name).cwd", cwd)
        for (index, entry) in env.enumerated() {
            let field = "\(name).env[\(index)]"
            problems.text(field, entry)
            // By bytes: a character can be "=" and a mark on it.
            guard let equals = entry.utf8.firstIndex(of: UInt8(ascii: "=")) else {
                problems.add(field, "\"\(entry)\" has no '='")
                continue
            }
            if equals == entry.startIndex { problems.add(field, "\"\(entry)\" has no name before '='") }
        }
        if let umask = user.umask, umask > 0o777 { problems.add("\(name).user.umask", "\(umask) is more than 0777") }
        for (field, id) in [("uid", user.uid), ("gid", user.gid)] where id == .max {
            problems.add("\(name).user.\(field)", "\(id) is not an id")
        }
        for (index, gid) in user.additionalGids.enumerated() where gid == .max {
            problems.add("\(name).user.additionalGids[\(index)]", "\(gid) is not an id")
        }
        collectTerminal(name, &problems)
        collectLimits(name, &problems)
        if let oomScoreAdj, !(-1000...1000).contains(oomScoreAdj) {
            problems.add("\(name).oomScoreAdj", "\(oomScoreAdj) is not between -1000 and 1000")
        }
    }

    private func collectTerminal(_ name: String, _ problems: inout Problems) {
        // The limits of struct winsize. Without a terminal the size must be ignored (config.md, consoleSize).
        guard terminal, let size = consoleSize else { return }
        if size.height > 65535 { problems.add("\(name).consoleSize.height", "\(size.height) is more than 65535") }
        if size.width > 65535 { problems.add("\(name).consoleSize.width", "\(size.width) is more than 65535") }
    }

    private func collectLimits(_ name: String, _ problems: inout Problems) {
        var seen: Set<String> = []
        for (index, limit) in rlimits.enumerated() {
            let field = "\(name).rlimits[\(index)]"
            if !Rlimit.names.contains(limit.type) {
                problems.add("\(field).type", "\"\(limit.type)\" is not a resource limit")
            }
            if !seen.insert(limit.type).inserted { problems.add("\(field).type", "\(limit.type) is given twice") }
            if limit.soft > limit.hard {
                problems.add("\(field).soft", "\(limit.soft) is more than the hard limit \(limit.hard)")
            }
        }
    }
}

extension Mount {
    fileprivate func collect(_ name: String, _ problems: inout Problems) {
        problems.path("\(name).destination", destination)
        if uidMappings.isEmpty != gidMappings.isEmpty {
            let missing = uidMappings.isEmpty ? "uidMappings" : "gidMappings"
            problems.add("\(name).\(missing)", "missing, the other ids are mapped")
        }
        problems.text("\(name).type", type)
        problems.text("\(name).source", source)
        for (index, option) in options.enumerated() { problems.text("\(name).options[\(index)]", option) }
        if isBind && source.isEmpty { problems.add("\(name).source", "missing, a bind mount needs one") }
        if !isBind && type.isEmpty { problems.add("\(name).type", "missing, and no option bind or rbind") }
    }
}

extension Hooks {
    fileprivate func collect(_ name: String, _ problems: inout Problems) {
        let points = [
            ("prestart", prestart), ("createRuntime", createRuntime), ("createContainer", createContainer),
            ("startContainer", startContainer), ("poststart", poststart), ("poststop", poststop),
        ]
        for (point, hooks) in points {
            for (index, hook) in hooks.enumerated() {
                let field = "\(name).\(point)[\(index)]"
                problems.absolute("\(field).path", hook.path)
                for (number, text) in (hook.args + hook.env).enumerated() {
                    problems.text("\(field), argument or variable \(number)", text)
                }
                if let timeout = hook.timeout, timeout <= 0 {
                    problems.add("\(field).timeout", "\(timeout) is not more than 0")
                }
            }
        }
    }
}

extension Linux {
    fileprivate func collect(_ name: String, _ problems: inout Problems) {
        collectNamespaces(name, &problems)
        for key in sysctl.keys.sorted() where !Self.isSysctlName(key) {
            problems.add("\(name).sysctl", "\"\(key)\" is not a kernel parameter's name")
        }
        for (index, path) in maskedPaths.enumerated() { problems.absolute("\(name).maskedPaths[\(index)]", path) }
        for (index, path) in readonlyPaths.enumerated() { problems.absolute("\(name).readonlyPaths[\(index)]", path) }
        for (index, device) in devices.enumerated() {
            let field = "\(name).devices[\(index)]"
            problems.absolute("\(field).path", device.path)
            if !["c", "u", "b", "p"].contains(device.type) {
                problems.add("\(field).type", "\"\(device.type)\" is not c, u, b or p")
            }
            // dev_t: 12 bits of major number, 20 of minor (makedev(3) on Linux).
            if let major = device.major, !(0..<4096).contains(major) {
                problems.add("\(field).major", "\(major) is not a device number")
            }
            if let minor = device.minor, !(0..<(1 << 20)).contains(minor) {
                problems.add("\(field).minor", "\(minor) is not a device number")
            }
        }
        collectMappings(name, &problems)
        let propagations = [
            "", "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable",
        ]
        if !propagations.contains(rootfsPropagation) {
            problems.add("\(name).rootfsPropagation", "\"\(rootfsPropagation)\" is not a mount propagation")
        }
    }

    private func collectNamespaces(_ name: String, _ problems: inout Problems) {
        var seen: Set<String> = []
        for (index, namespace) in namespaces.enumerated() {
            let field = "\(name).namespaces[\(index)]"
            if namespace.kind == nil {
                problems.add("\(field).type", "\"\(namespace.type)\" is not a namespace")
            } else if !seen.insert(namespace.type).inserted {
                problems.add("\(field).type", "\(namespace.type) is given twice")
            }
            if !namespace.path.isEmpty { problems.absolute("\(field).path", namespace.path) }
        }
    }

    private func collectMappings(_ name: String, _ problems: inout Problems) {
        let kinds = Set(namespaces.filter { $0.path.isEmpty }.compactMap(\.kind))
        for (field, mappings) in [("uidMappings", uidMappings), ("gidMappings", gidMappings)] {
            if kinds.contains(.user), mappings.isEmpty {
                problems.add("\(name).\(field)", "missing, a user namespace needs them")
            } else if kinds.contains(.user), !mappings.contains(where: { $0.containerID == 0 && $0.size > 0 }) {
                problems.add("\(name).\(field)", "do not map 0, the user that a container starts as")
            } else if !kinds.contains(.user), !mappings.isEmpty {
                problems.add("\(name).\(field)", "given without a user namespace of the container's own")
            }
        }
        if !timeOffsets.isEmpty, !kinds.contains(.time) {
            problems.add("\(name).timeOffsets", "given without a time namespace of the container's own")
        }
        for clock in timeOffsets.keys.sorted() where !["monotonic", "boottime"].contains(clock) {
            problems.add("\(name).timeOffsets", "\"\(clock)\" is neither monotonic nor boottime")
        }
    }

    /// Whether sysctl(8) accepts the name: parts of letters, digits, `_`, `-`, `*`, `@` and `:`, joined by dots or slashes. No part
    /// may be empty, `.` or `..`, so that the name can't lead out of /proc/sys.
    static func isSysctlName(_ name: String) -> Bool {
        let parts = name.utf8.split(omittingEmptySubsequences: false) {
            $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "/")
        }
        return parts.count > 1
            && parts.allSatisfy { part in
                !part.isEmpty
                    && part.allSatisfy { byte in
                        switch byte {
                        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                            UInt8(ascii: "0")...UInt8(ascii: "9"):
                            true
                        default: "_-*@:".utf8.contains(byte)
                        }
                    }
            }
    }
}

/// Collects problems, with checks that many fields share.
private struct Problems {
    var list: [SpecError.Problem] = []

    mutating func add(_ field: String, _ reason: String) { list.append(.init(field, reason)) }

    /// Checks text that becomes a C string.
    mutating func text(_ field: String, _ text: String) {
        if text.utf8.contains(0) { add(field, "has a NUL character") }
    }

    mutating func path(_ field: String, _ path: String) {
        if path.isEmpty { add(field, "must not be empty") }
        if path.utf8.count > 4095 { add(field, "longer than 4095 bytes") }
        text(field, path)
    }

    mutating func absolute(_ field: String, _ path: String) {
        self.path(field, path)
        if !path.isEmpty && !path.hasPrefix("/") { add(field, "\"\(path)\" is not an absolute path") }
    }
}
