extension Linux {
    /// Whether the container may use every device, as a privileged one: then it gets all devices of its virtual machine, and
    /// those of the host in `devices`, which engines list, are left out.
    public var allowsAllDevices: Bool { resources?.allowsAllDevices ?? false }

    /// The devices that only the host has.
    var hostDevices: [Device] { devices.filter { !$0.isGuests } }

    /// Removes the devices that only the host has.
    public mutating func removeHostDevices() { devices.removeAll { !$0.isGuests } }
}

extension Linux.Resources {
    /// Whether the last rule for all devices allows everything.
    fileprivate var allowsAllDevices: Bool { devices.last { $0.isForAll }?.allow ?? false }
}

extension Linux.Resources.DeviceRule {
    /// -1: as some engines write "any". Without letters a rule is for each access.
    fileprivate var isForAll: Bool {
        ["", "a"].contains(type) && (major ?? -1) == -1 && (minor ?? -1) == -1
            && (access.isEmpty || "rwm".allSatisfy(access.contains))
    }
}

extension Linux.Device {
    /// Whether the guest has the device itself: null, zero, full, random, urandom, kmsg, tty, console, ptmx,
    /// tun and fuse (Documentation/admin-guide/devices.txt). A fifo is no device.
    var isGuests: Bool {
        switch (type, major ?? 0, minor ?? 0) {
        case ("p", _, _): true
        case ("c", 1, 3), ("c", 1, 5), ("c", 1, 7...9), ("c", 1, 11), ("c", 5, 0...2), ("c", 10, 200), ("c", 10, 229):
            true
        case ("u", let major, let minor): Self(path: path, type: "c", major: major, minor: minor).isGuests
        default: false
        }
    }
}
