import Glibc
import LinuxSystem
import Testing

extension Containers.DockerTests {
    /// docker chooses its exit code by words of the runtime's error: 127 for a program that is not there, 126 for one that can't be
    /// executed, 125 for other failures. For `docker exec` it is always 126, with runc too.
    @Test func aProgramThatCanNotRunIsToldAsByRunc() throws {
        let cases: [(arguments: [String], code: Int32, words: String)] = [
            (["none"], 127, #"exec: "none": executable file not found in $PATH"#),
            (["/bin/none"], 127, #"exec: "/bin/none": stat /bin/none: no such file or directory"#),
            (["/etc/passwd"], 126, #"exec: "/etc/passwd": permission denied"#),
            (["/etc"], 126, #"exec: "/etc": is a directory"#),
        ]
        try Docker.play { docker, scene in
            let name = scene.newID()
            try docker.succeed(
                "run", "-d", "--name", name, Docker.image, "/bin/sh", "-c",
                "echo text >/text; chmod 755 /text; sleep 1000")
            let start = "unable to start container process: "
            for (arguments, code, words) in cases {
                let run = try docker.run(["run", "--rm", Docker.image] + arguments)
                #expect(run.code == code && run.errorText.contains(start + words), "\(run.code): \(run.errorText)")
                #expect(!run.errorText.contains("invalid argument"), "\(run.errorText)")
                let exec = try docker.run(["exec", name] + arguments)
                let text = exec.text + exec.errorText
                #expect(exec.code == 126 && text.contains("OCI runtime exec failed: "), "\(exec.code): \(text)")
                #expect(text.contains(start + words) && !text.contains("invalid argument"), "\(text)")
            }
            let directory = try docker.run("exec", "-w", "/none", name, "true")
            #expect(directory.code == 126, "\(directory.text)\(directory.errorText)")
            let format = try docker.run("exec", name, "/text")
            #expect(format.code == 126, "\(format.text)\(format.errorText)")
            #expect((format.text + format.errorText).contains("exec /text: exec format error"))
            try docker.succeed("rm", "-f", name)
        }
    }
}
