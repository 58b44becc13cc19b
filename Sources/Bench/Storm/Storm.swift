/// What a pod does to disturb its node, as a shell script for a privileged container that has busybox.
public struct Storm: Sendable, Equatable {
    public var name: String
    /// What is measured while it goes on.
    public var summary: String
    /// Runs without end.
    var script: String

    /// Nothing: the pod sleeps.
    static let quiet = Storm(name: "quiet", summary: "the other pod sleeps", script: "sleep 100000")
    /// What any busy guest costs its neighbours.
    static let busy = Storm(
        name: "busy", summary: "a loop that only computes", script: "while :; do :; done")

    /// All of them; the first two are what the others are compared with.
    public static let all = [
        quiet, busy,
        Storm(
            name: "ports", summary: "a hundred listening ports that open and close",
            script: """
                exec 2>/dev/null
                while :; do
                    n=0; all=
                    while [ $n -lt 100 ]; do nc -l -p $((20000 + n)) & all="$all $!"; n=$((n + 1)); done
                    sleep 0.7; kill $all; wait
                done
                """),
        Storm(
            name: "oom", summary: "processes that the guest's kernel kills for want of memory",
            script: """
                exec 2>/dev/null
                cd /sys/fs/cgroup; mkdir small init; echo $$ >init/cgroup.procs; echo +memory >cgroup.subtree_control
                echo 8M >small/memory.max
                while :; do (echo 0 >small/cgroup.procs; exec dd if=/dev/zero of=/dev/null bs=64M count=1); done
                """),
        Storm(name: "output", summary: "standard output without end", script: "exec yes the same line again and again"),
        Storm(
            name: "errors", summary: "standard error without end", script: "exec yes the same line again and again >&2"),
        Storm(
            name: "console", summary: "lines of the kernel's log without end",
            script: """
                mknod /tmp/kmsg c 1 11; echo on >/proc/sys/kernel/printk_devkmsg
                while :; do echo "a line of the console" >/tmp/kmsg; done
                """),
        Storm(
            name: "files", summary: "20000 files of a share looked at again and again, 200 directories open",
            script: """
                for directory in /share/*; do sleep 100000 <$directory & done
                while :; do ls -lR /share >/dev/null; echo 2 >/proc/sys/vm/drop_caches; done
                """),
        Storm(
            name: "names", summary: "files of a share made, renamed and removed",
            script: """
                exec 2>/dev/null
                mkdir /share/own; cd /share/own
                while :; do
                    n=0; while [ $n -lt 200 ]; do echo >$n; mv $n new-$n; n=$((n + 1)); done
                    rm -r /share/own/*
                done
                """),
        Storm(
            name: "writes", summary: "a file of a share written again and again",
            script: "exec 2>/dev/null; while :; do dd if=/dev/zero of=/share/large bs=1M count=32 conv=fsync; done"),
    ]

    /// The arguments of the container's process: it prints a line before it begins.
    public var arguments: [String] { ["/bin/sh", "-c", "echo ready\n\(script)"] }
}
