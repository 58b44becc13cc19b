#!/bin/bash
# containerd-checkpoint-check.sh [SUITE] : has containerd's CRI plugin write checkpoints of containers (CheckpointContainer: kubelet's
# checkpoint API, `crictl checkpoint`), with the containerd of some Debian release (sid: 2.1), where that can be fetched. Needs root, CNI
# plugins and Debian's criu, which containerd asks for its version and nothing else. In the lab, where the built-in VMM has a /dev/kvm
# (scripts/lab.sh scripts/containerd-checkpoint-check.sh), the checkpoint is written and a pod goes on from it; elsewhere, over QEMU, it
# is refused by name. Prints a line for each check.
set -Eeuo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh
bin=$(realpath "${MARTLET_BIN:-.build/release}") guest=${MARTLET_GUEST:-$PWD/.build/guest/own}
driver=${MARTLET_TEST_DRIVER:-qemu} patience=${MARTLET_TEST_PATIENCE:-1}
command -v criu >/dev/null || need criu || { echo "skipped CheckpointContainer: criu can't be installed"; exit 0; }
directory=$(scripts/debian-program.sh "${1:-sid}" containerd 2>/dev/null) || { echo "skipped CheckpointContainer: containerd of ${1:-sid} can't be fetched"; exit 0; }
descriptors=$(scripts/cri-descriptors.sh)
work=$(mktemp -d "${MARTLET_TEST_DIRECTORY:-/tmp}/martlet-cri-checkpoint.XXXXXX")
name=ckpt$$ daemon= sandbox=
export PATH=$bin:$directory/usr/bin:$PATH TMPDIR=$work XDG_RUNTIME_DIR=$work

# cri METHOD MESSAGE [EXPRESSION] : a call, and what a Python expression makes of its answer (a); or "error: ...".
cri() {
    echo "{\"number\": 1, \"version\": \"v1\", \"method\": \"$1\", \"timeout\": $((120 * patience)), \"message\": ${2//$'\n'/ }}" |
        Tests/EndToEnd/Programs/cri.py call "$work/sock" "$descriptors" >"$work/reply"
    python3 -c '
import json, sys
reply = json.load(open(sys.argv[1]))
a = reply.get("answer")
print("error: " + reply["error"] if "error" in reply else eval(sys.argv[2]))' "$work/reply" "${3:-a}"
}
# done_ TEXT : fails where it is an error; prints it.
done_() { [[ $1 != error:* ]] || { echo "$1" >&2; return 1; }; echo "$1"; }
martlet() { "$bin/martlet" --root "$work/pods" --config "$work/martlet.toml" "$@"; }
cleanup() {
    [[ -z $sandbox ]] || cri RemovePodSandbox "{\"pod_sandbox_id\": \"$sandbox\"}" >/dev/null || true
    for id in ${restored:-}; do martlet delete --force "$id" || true; done
    [[ -z $daemon ]] || { kill "$daemon" && wait "$daemon"; } 2>/dev/null || true
    awk -v work="$work/" 'index($2, work) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r -n 1 umount 2>/dev/null || true
    ip netns del "$name" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap '[[ $BASH_SUBSHELL -gt 0 ]] || { echo "FAILED  line $LINENO"; cat "$work/reply"; grep -v level=info "$work/log" | tail -8; } >&2 || true' ERR
expect() { [[ $2 == $3 ]] || { echo "FAILED  $1: '$2', not '$3'"; grep -v level=info "$work/log" | tail -8; exit 1; }; echo "ok      $1"; }

# The network of the pods' host, as a namespace of its own, so that nothing of this machine's changes.
ip netns add "$name"
ip -n "$name" link set lo up
mkdir -p "$work/cni" "$work/logs"
cat >"$work/cni/10-pods.conflist" <<END
{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "dataDir": "$work/leases",
 "ranges": [[{"subnet": "10.97.0.0/24"}]]}}]}
END
cat >"$work/config.toml" <<END
version = 3
root = "$work/root"
state = "$work/state"
[grpc]
  address = "$work/sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "native"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "docker.io/library/pause:test"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "$work/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.martlet]
    runtime_type = "io.containerd.martlet.v2"
END
cat >"$work/martlet.toml" <<END
hypervisor = "$driver"
paths.root = "$work/pods"
vm.memory_mib = 256
template.mode = "off"
agent.start_timeout_s = $((30 * patience))
agent.request_timeout_s = $((30 * patience))
agent.heartbeat_timeout_ms = $((4000 * patience))
END
export MARTLET_CONFIG=$work/martlet.toml MARTLET_GUEST=$guest
ip netns exec "$name" containerd --config "$work/config.toml" >"$work/log" 2>&1 &
daemon=$!
ready() { cri Status '{}' 'all(c["status"] for c in a["status"]["conditions"])' | grep -qx True; }
for _ in $(seq $((60 * patience))); do ! ready || break; sleep 0.5; done
ready
ctr() { command ctr --address "$work/sock" -n k8s.io "$@"; }
scripts/image.py docker.io/library/pause:test "$work/pause.tar" /bin/sleep 100000000
scripts/image.py docker.io/library/busybox:latest "$work/busybox.tar"
for image in pause busybox; do ctr image import --local --snapshotter native "$work/$image.tar" >/dev/null; done
version=$(containerd --version | awk '{print $3}')

pod="{\"metadata\": {\"name\": \"pod\", \"uid\": \"uid\", \"namespace\": \"test\"}, \"hostname\": \"pod\", \"log_directory\": \"$work/logs\", \"linux\": {}}"
sandbox=$(done_ "$(cri RunPodSandbox "{\"config\": $pod, \"runtime_handler\": \"martlet\"}" 'a["pod_sandbox_id"]')")
# container NAME IMAGE SCRIPT : makes one, and prints its id.
container() {
    cri CreateContainer "{\"pod_sandbox_id\": \"$sandbox\", \"sandbox_config\": $pod, \"config\": {\"metadata\": {\"name\": \"$1\"},
        \"image\": {\"image\": \"$2\", \"user_specified_image\": \"$2\"}, \"command\": [\"/bin/sh\", \"-c\", \"$3\"],
        \"log_path\": \"$1.log\", \"linux\": {}}}" 'a["container_id"]'
}
start() { cri StartContainer "{\"container_id\": \"$1\"}"; }
checkpoint() { cri CheckpointContainer "{\"container_id\": \"$1\", \"location\": \"$2\", \"timeout\": 300}"; }
state() { cri ContainerStatus "{\"container_id\": \"$1\"}" 'a["status"]["state"]'; }
exec_() { cri ExecSync "{\"container_id\": \"$1\", \"cmd\": [\"/bin/sh\", \"-c\", \"$2\"], \"timeout\": 60}" '__import__("base64").b64decode(a["stdout"]).decode()'; }
id=$(done_ "$(container work busybox 'n=0; while :; do n=$((n+1)); echo $n >/count; sleep 0.1; done')")
done_ "$(start "$id")" >/dev/null
exec_ "$id" 'while [ $(cat /count) -lt 10 ]; do sleep 0.1; done'  >/dev/null
archive=$work/checkpoint.tar
if [[ $driver != kvm ]]; then
    expect "containerd $version: with $driver it is refused by name" "$(checkpoint "$id" "$archive")" "*a checkpoint with qemu*"
    expect "the container goes on" "$(state "$id")" CONTAINER_RUNNING
    exit 0
fi
expect "containerd $version: CheckpointContainer" "$(checkpoint "$id" "$archive")" "{}"
expect "the container goes on" "$(state "$id")" CONTAINER_RUNNING
before=$(exec_ "$id" 'cat /count')
expect "it counts on" "$(exec_ "$id" "while [ \$(cat /count) -le $before ]; do sleep 0.1; done; echo yes")" yes
expect "the archive has the machine" "$(tar -tf "$archive" | sed 's/^\.\///' | grep -E '^(checkpoint/(checkpoint.json|files|memory|state)|config.dump|spec.dump|rootfs-diff.tar)$' | sort | tr '\n' ' ')" \
    "checkpoint/checkpoint.json checkpoint/files checkpoint/memory checkpoint/state config.dump rootfs-diff.tar spec.dump "
expect "nothing else is left of it" "$(find "$work" -maxdepth 1 -name 'ctrd-checkpoint*'; find "$work/pods" -name '.fork*')" ""

# Back into the pod that runs: its machine can't take another one in.
back=$(container back "$archive" true)
if [[ $back == *"failed to pull"* ]]; then
    # It asks a registry for the image below the checkpoint, whether it has it or not.
    echo "skipped a restore into a pod that runs: containerd pulls the checkpoint's image, and there is no registry"
else
    expect "a restore into a pod that runs is refused by name" "$(start "$(done_ "$back")")" "*whose machine runs already*"
fi
expect "the container goes on" "$(state "$id")" CONTAINER_RUNNING

# A second container: the machine has more than this one.
second=$(done_ "$(container second busybox 'sleep 100000')")
done_ "$(start "$second")" >/dev/null
expect "a container beside others is refused by name" "$(checkpoint "$id" "$work/other.tar")" "*without containers*"

# The pod by itself, from the archive: with the same bundles and root file systems.
mkdir "$work/image" "$work/bundles"
tar -xf "$archive" -C "$work/image"
options=() restored=
for container in "$sandbox" "$id"; do
    source=$work/state/io.containerd.runtime.v2.task/k8s.io/$container
    mkdir -p "$work/bundles/$container/rootfs"
    cp "$source/config.json" "$work/bundles/$container/"
    snapshot=$(ctr snapshots --snapshotter native mounts / "$container" | sed -n 's/.* \(\/[^ ]*\/snapshots\/[0-9]*\) .*/\1/p')
    cp -a "$snapshot/." "$work/bundles/$container/rootfs/"
    options+=(--bundle "$container=$work/bundles/$container" --rename "$container=r-${container::12}")
    restored+=" r-${container::12}"
done
python3 - "$work"/bundles/*/config.json <<'END'
import json, sys
for file in sys.argv[1:]:
    spec = json.load(open(file))
    # What is the engine's pod's: its network and its control groups.
    spec["linux"]["cgroupsPath"] = ""
    for namespace in spec["linux"]["namespaces"]:
        if namespace["type"] == "network": namespace.pop("path", None)
    spec["root"]["path"] = "rootfs"
    json.dump(spec, open(file, "w"))
END
# Where containerd is, whose pods' /dev/shm are mounted there alone.
nsenter -t "$daemon" -m -n "$bin/martlet" --root "$work/pods" --config "$work/martlet.toml" pod restore "${options[@]}" "$work/image/checkpoint" \
    </dev/null >"$work/out" 2>"$work/err" || { cat "$work/err" >&2; false; }
expect "the pod goes on from the archive" "$(martlet exec "r-${id::12}" sh -c 'c=$(cat /count); sleep 1; [ $(cat /count) -gt $c ] && echo yes')" yes
