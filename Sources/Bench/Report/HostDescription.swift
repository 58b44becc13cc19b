import Glibc

/// The machine in a line: processors, kernel, and how busy it is.
public func hostDescription() -> String {
    var system = utsname()
    uname(&system)
    let release = withUnsafeBytes(of: &system.release) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    var load = [0.0]
    let busy = getloadavg(&load, 1) == 1 ? ", load \(Figures.short(load[0])) at the start" : ""
    return "\(sysconf(Int32(_SC_NPROCESSORS_ONLN))) processors, Linux \(release)\(busy)"
}
