import FuzzSupport

@testable import Sandbox

/// TOML files, one over the other, and what is read of them.
final class ConfigurationTarget: FuzzTarget {
    /// Input: a byte for the annotation, then the text; a NUL divides files.
    func run(_ input: inout Input) throws {
        let choice = input.byte()
        var tree = SettingTree()
        for (index, part) in input.rest().split(separator: 0).prefix(3).enumerated() {
            guard let text = String(validating: part, as: UTF8.self) else { return }
            if index == 2 || choice & 1 == 1 && index == 1 {
                let keys = ["vm.memory_mib", "vm.vcpus", "agent.request_timeout_s", "spec.labels", "vm.kernel", "x.y"]
                tree.set(keys[Int(choice >> 1) % keys.count], text: text, file: "annotation")
            } else {
                try tree.merge(text, file: "file \(index)")
            }
        }
        let configuration = try Configuration(tree)
        require((1...32).contains(configuration.vm.vcpus), "\(configuration.vm.vcpus) vCPUs")
        require(configuration.vm.memoryMiB >= Configuration.minimumMemoryMiB, "\(configuration.vm.memoryMiB) MiB")
    }
}
