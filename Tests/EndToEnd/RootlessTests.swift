import Glibc
import LinuxSystem
import Testing

private enum OrdinaryUser {
    static let id = 4242

    /// Why none can run podman here; nil: one can.
    static var obstacle: String? {
        for program in ["newuidmap", "slirp4netns", "setpriv", "unshare"] where Lab.program(program) == nil {
            return "no \(program) in PATH"
        }
        if Lab.driver != .qemu { return "the user is given no /dev/kvm" }
        if let obstacle = Podman.obstacle { return obstacle }
        let reads = ["unshare", "-Ur", "sh", "-c", "test -x \(Lab.martlet) && test -r \(Lab.guest)/initramfs"]
        let user = ["--reuid", "\(id)", "--regid", "\(id)", "--clear-groups"]
        if (try? Command.run("setpriv", user + reads)) == nil {
            return "a user other than root can't make a user namespace, or not read \(Lab.martlet) and \(Lab.guest)"
        }
        return nil
    }
}

extension Containers {
    /// podman as an ordinary user: in a user namespace, with a range of ids of its own and a network by slirp4netns.
    @Suite(.enabled(if: OrdinaryUser.obstacle == nil, "\(OrdinaryUser.obstacle ?? "")"))
    struct RootlessTests {
        /// What root does, in a mount namespace of its own: a user with ids, who may make network interfaces in namespaces of its own.
        private static func preparation(_ directory: String) -> String {
            """
            set -e
            cd \(directory)
            mount --make-rprivate /
            over() { cat "$1" - >"${1##*/}" 2>/dev/null && touch "$1" && mount --bind "${1##*/}" "$1"; }
            echo 'martlet-test:x:\(OrdinaryUser.id):\(OrdinaryUser.id)::\(directory)/home:/bin/sh' | over /etc/passwd
            echo 'martlet-test:x:\(OrdinaryUser.id):' | over /etc/group
            for file in subuid subgid; do touch /etc/$file; echo martlet-test:300000:65536 | over /etc/$file; done
            mknod -m 666 tun c 10 200 && mount --bind tun /dev/net/tun
            mkdir -m 700 home run && chown \(OrdinaryUser.id):\(OrdinaryUser.id) home run
            exec setpriv --reuid \(OrdinaryUser.id) --regid \(OrdinaryUser.id) --clear-groups sh user.sh
            """
        }

        /// What the user does.
        private static func use(_ directory: String, port: Int) -> String {
            """
            export HOME=\(directory)/home XDG_RUNTIME_DIR=\(directory)/run
            cd $HOME
            podman() {
                command podman --cgroup-manager cgroupfs --events-backend file --storage-driver vfs \
            --runtime \(directory)/martlet "$@"
            }
            trap 'podman rm -f -t 0 web; podman system migrate' EXIT
            tar c -C \(directory)/tree/rootfs . | podman import - busybox >/dev/null 2>&1
            mkdir volume
            podman run -d --name web -p 127.0.0.1:\(port):80 -v $HOME/volume:/volume busybox \
            sh -c 'echo served >/volume/index.html; exec httpd -f -p 80 -h /volume' >/dev/null || exit
            for try in $(seq 100); do
                busybox wget -q -O - http://127.0.0.1:\(port)/index.html 2>/dev/null && break
                sleep 0.3
            done
            podman exec web sh -c 'id -u; ip route | grep -c default; exit 5'; echo "exec $?"
            stat -c 'owner %u' volume/index.html
            podman stop -t 0 web >/dev/null; echo "stop $?"
            podman run --rm busybox sh -c 'exit 7'; echo "run $?"
            """
        }

        @Test func anOrdinaryUserHasMachines() throws {
            try Scene.play { scene in
                let directory = scene.directory
                let tree = try scene.makeDirectory("tree")
                _ = try Rootfs.busybox.place(in: tree)
                let settings = try scene.configuration()[1]
                try scene.write(
                    "martlet",
                    """
                    #!/bin/sh
                    export MARTLET_GUEST=\(Lab.guest)
                    exec \(Lab.martlet) --config \(settings) --root \(directory)/run/martlet "$@"

                    """)
                chmod("\(directory)/martlet", 0o755)
                try scene.write("root.sh", Self.preparation(directory))
                try scene.write("user.sh", Self.use(directory, port: 20000 + Int(getpid()) % 10000))
                let command = try Command(
                    "unshare", ["-m", "sh", "\(directory)/root.sh"], environment: Lab.environment)
                let outcome = try command.finish(within: .seconds(200) * Lab.patience)
                let lines = outcome.lines.prefix(6)
                #expect(
                    lines == ["served", "0", "1", "exec 5", "owner \(OrdinaryUser.id)", "stop 0"]
                        && outcome.lines.contains("run 7"),
                    "\(outcome.text)\(outcome.errorText)")
            }
        }
    }
}
