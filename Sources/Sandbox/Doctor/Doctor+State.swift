import Glibc
import LinuxSystem
import Logging

/// What pods, templates and the pool have left.
extension Doctor {
    /// Pods whose servers have died.
    func leftovers() -> [Finding] {
        PodList.all(root: configuration.paths.root).filter { !$0.isRunning }.map { pod in
            Finding(
                .fault, "pod \(pod.id)", "its server has died, and left \(pod.directory)",
                remedy: "martlet\(options) --root \(configuration.paths.root) check --clean")
        }
    }

    func templates() -> [Finding] {
        let directory = configuration.template.directory
        var facts = stat()
        guard stat(directory, &facts) == 0 else { return [] }
        var found: [Finding] = []
        if facts.st_mode & 0o077 != 0 || facts.st_uid != geteuid() {
            found.append(
                Finding(
                    .fault, "template.directory",
                    "\(directory) is open to others: who can write there can put anything into pods",
                    remedy: "chown \(geteuid()) \(directory) && chmod 700 \(directory)"))
        }
        let maker = TemplateMaker(configuration, logger: Logger(label: "doctor") { _ in SwiftLogNoOpLogHandler() })
        for (name, objection) in maker.unusable() {
            found.append(
                Finding(
                    .advice, "template \(name)", "\(objection): no pod starts from it",
                    remedy: "martlet\(options) template rm \(name)"))
        }
        let unfinished = TemplateStore(directory: directory).abandoned()
        if !unfinished.isEmpty {
            found.append(
                Finding(
                    .advice, "template.directory",
                    "makers that were killed have left \(unfinished.joined(separator: ", "))",
                    remedy: "martlet\(options) template create"))
        }
        return found
    }

    func pool() -> [Finding] {
        let pool = Pool(directory: configuration.pool.directory)
        var found: [Finding] = []
        let members = pool.members()
        let stale = members.filter { !$0.isOfThisHost }
        if !stale.isEmpty {
            found.append(
                Finding(
                    .advice, "pool",
                    "\(stale.count) machines are of another version of Martlet, or of other namespaces",
                    remedy: "martlet\(options) pool drain && martlet\(options) pool fill"))
        }
        if members.count < configuration.pool.size {
            found.append(
                Finding(
                    .advice, "pool", "\(members.count) machines are ready, \(configuration.pool.size) are wanted",
                    remedy: "martlet\(options) pool fill"))
        }
        return found
    }
}
