import Glibc

/// The host in one line: CPUs, kernel and load.
public func hostDescription() -> String {
    var system = utsname()
    uname(&system)
    let release = withUnsafeBytes(of: &system.release) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    var load = [0.0]
    let busy = getloadavg(&load, 1) == 1 ? ", load \(Figures.short(load[0])) at the start" : ""
    return "\(sysconf(Int32(_SC_NPROCESSORS_ONLN))) CPUs, Linux \(release)\(busy)"
}
