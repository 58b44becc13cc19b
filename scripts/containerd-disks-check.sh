#!/bin/bash
# containerd-disks-check.sh [SUITE…] : runs containers whose root file systems are images, with the blockfile snapshotter of the containerd of
# some Debian release (sid; this machine's has none), where it can be fetched. Needs root, loop devices and QEMU. Prints a line for each.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(realpath "${MARTLET_BIN:-.build/release}") guest=${MARTLET_GUEST:-$PWD/.build/guest/own}
work=$(mktemp -d /tmp/martlet-disks.XXXXXX)
daemon=
cleanup() {
    [[ -z $daemon ]] || { kill "$daemon" && wait "$daemon"; } 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT
image=docker.io/library/busybox:latest
ctr() { command ctr --address "$work/sock" "$@"; }
run() { ctr run --rm --snapshotter blockfile --runtime io.containerd.martlet.v2 "$image" "$@"; }
expect() { [[ $2 == "$3" ]] || { echo "FAILED  $1: $2, not $3"; tail -5 "$work/log"; exit 1; }; echo "ok      $1"; }

start() {
    cat >"$work/config.toml" <<END
version = 3
root = "$work/root"
state = "$work/state"
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]
[grpc]
  address = "$work/sock"
[plugins."io.containerd.snapshotter.v1.blockfile"]
  root_path = "$work/blockfile"
  scratch_file = "$work/scratch"
  fs_type = "ext4"
  mount_options = ["loop", "discard"]
  recreate_scratch = true
END
    printf 'hypervisor = "%s"\npaths.root = "%s"\n' "${MARTLET_TEST_DRIVER:-qemu}" "$work/pods" >"$work/martlet.toml"
    truncate -s 96M "$work/scratch"
    mkfs.ext4 -q -F "$work/scratch"
    PATH=$bin:$PATH MARTLET_CONFIG=$work/martlet.toml MARTLET_GUEST=$guest containerd --config "$work/config.toml" >"$work/log" 2>&1 &
    daemon=$!
    for _ in $(seq 100); do ctr version >/dev/null 2>&1 && return; sleep 0.1; done
    tail -5 "$work/log"
    return 1
}

for suite in "${@:-sid}"; do
    directory=$(scripts/debian-program.sh "$suite" containerd 2>/dev/null) || { echo "skipped containerd of $suite: it can't be fetched"; continue; }
    PATH=$directory/usr/bin:$PATH
    start
    name="containerd $(containerd --version | awk '{print $3}')"
    scripts/image.py "$image" "$work/image.tar"
    ctr image import --local --snapshotter blockfile "$work/image.tar" >/dev/null
    expect "$name: an image of blockfile is the root" \
        "$(run one sh -c 'echo kept >/file; cat /file; grep -c "^/dev/vd[a-z]* / ext4 rw" /proc/mounts')" $'kept\n1'
    expect "$name: what it wrote is not in the next container" "$(run two sh -c 'ls /file 2>&1 | grep -c No')" 1
    expect "$name: a full root" "$(run three sh -c 'dd if=/dev/zero of=/fill bs=1M 2>&1 | grep -c "No space left"; echo goes on')" $'1\ngoes on'
    expect "$name: nothing is left" "$(find "$work"/state/io.containerd.runtime.v2.task -mindepth 2; find "$work/pods" -name state.json)" ""
    for file in "$work"/blockfile/snapshots/*; do
        # containerd removes what is no longer used when it has time.
        e2fsck -f -n "$file" >/dev/null 2>&1 || [[ ! -e $file ]] || { echo "FAILED  $name: e2fsck $file"; exit 1; }
    done
    echo "ok      $name: every image is whole"
done
