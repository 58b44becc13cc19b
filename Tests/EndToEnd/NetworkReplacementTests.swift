import Testing

extension Containers.NetworkTests {
    /// An interface of a running pod is removed and another is added, more often than the machine has room for interfaces.
    @Test(.timeLimit(.minutes(10))) func anInterfaceIsReplacedManyTimes() throws {
        let last = Lab.everything ? 51 : 13
        try play { scene, net in
            let pod = try net.pod()
            let script = """
                echo up; n=2
                while [ $n -le \(last) ]; do
                    until ip addr show eth0 2>/dev/null | grep -q "10.99.0.$n/24"; do sleep 0.02; done
                    # Routes come a moment after addresses.
                    until ping -c 1 -W 5 10.99.0.1 >/dev/null 2>&1; do sleep 0.02; done
                    echo "reached $n"; n=$((n + 1))
                done
                while [ -e /sys/class/net/eth0 ]; do sleep 0.02; done
                echo gone; read line
                """
            let run = try scene.start(bundle: bundle(scene, in: pod, script), input: .pipe)
            try run.output?.wait(for: "up\n")
            for number in 2...last {
                if number > 2 { try Command.run("ip", ["-n", pod, "link", "del", "eth0"]) }
                try net.connect(pod, number: number)
                try run.output?.wait(for: "reached \(number)\n", within: .seconds(60))
            }
            try Command.run("ip", ["-n", pod, "link", "del", "eth0"])
            try run.output?.wait(for: "gone\n")
            run.input?.write("\n")
            #expect(try run.finish().code == 0)
            #expect(try net.traces(pod).isEmpty)
        }
    }
}
