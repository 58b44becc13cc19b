#!/bin/bash
# containerd-disks-check.sh [SUITE…] : runs containers whose root file systems are images, with the snapshotters blockfile, erofs and
# devmapper of the containerd of some Debian release (sid; this machine's has none), where that can be fetched. Needs root, loop devices
# and QEMU; erofs needs EROFS in this kernel, and takes its tools from trixie; devmapper needs dm-thin-pool, which the lab's kernel has
# (scripts/lab.sh scripts/containerd-disks-check.sh). Prints a line for each check, and for each snapshotter that can't be tried.
# MARTLET_SNAPSHOTTERS='blockfile erofs devmapper': only these.
set -Eeuo pipefail
cd "$(dirname "$0")/.."
bin=$(realpath "${MARTLET_BIN:-.build/release}") guest=${MARTLET_GUEST:-$PWD/.build/guest/own}
work=$(mktemp -d "${MARTLET_TEST_DIRECTORY:-/tmp}/martlet-disks.XXXXXX")
daemon= pool=martlet-disks-$$ devices=()
stop() {
    [[ -z $daemon ]] || { kill "$daemon" && wait "$daemon"; } 2>/dev/null || true
    daemon=
    # containerd mounts the layers of erofs on the host.
    awk -v work="$work/" 'index($2, work) == 1 { print $2 }' /proc/mounts | sort -r | xargs -r -n 1 umount 2>/dev/null || true
}
cleanup() {
    stop
    if [[ -e /dev/mapper/$pool ]]; then
        dmsetup ls 2>/dev/null | awk -v pool="$pool-" 'index($1, pool) == 1 { print $1 }' | xargs -r -n 1 dmsetup remove --retry || true
        dmsetup remove --retry "$pool" || true
    fi
    for device in ${devices[@]+"${devices[@]}"}; do losetup -d "$device" || true; done
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT
trap '{ echo "FAILED  ${name:-}: line $LINENO"; grep -v level=info "$work/log" | tail -8 || true; } >&2' ERR
# dmsetup makes its device nodes itself where no udev does.
[[ -S /run/udev/control ]] || export DM_DISABLE_UDEV=1
image=docker.io/library/busybox:latest
ctr() { command ctr --address "$work/sock" "$@"; }
run() { ctr run --rm --snapshotter "$snapshotter" --runtime io.containerd.martlet.v2 "$image" "$@"; }
expect() { [[ $2 == "$3" ]] || { echo "FAILED  $1: $2, not $3"; tail -5 "$work/log"; exit 1; }; echo "ok      $1"; }

# The configuration of each snapshotter, and what it needs; each says by name what is missing, and fails then.
configure_blockfile() {
    truncate -s 96M "$work/scratch"
    mkfs.ext4 -q -F "$work/scratch"
    cat <<END
[plugins."io.containerd.snapshotter.v1.blockfile"]
  root_path = "$work/blockfile"
  scratch_file = "$work/scratch"
  fs_type = "ext4"
  mount_options = ["loop", "discard"]
  recreate_scratch = true
END
}

configure_erofs() {
    local tools library
    modprobe -q erofs 2>/dev/null || true
    grep -qw erofs /proc/filesystems || { echo "this kernel has no EROFS" >&2; return 1; }
    tools=$(scripts/debian-program.sh trixie erofs-utils libc6 libdeflate0 liblz4-1 liblzma5 libpcre2-8-0 libselinux1 libuuid1 \
        libxxhash0 libzstd1 zlib1g 2>/dev/null) || { echo "erofs-utils of trixie can't be fetched" >&2; return 1; }
    # With its own C library: this machine's may be older.
    library=$tools/usr/lib/x86_64-linux-gnu
    printf '#!/bin/sh\nexec %s --library-path %s %s "$@"\n' "$library/ld-linux-x86-64.so.2" "$library" "$tools/usr/bin/mkfs.erofs" \
        >"$work/bin/mkfs.erofs"
    chmod 755 "$work/bin/mkfs.erofs"
    cat <<END
[plugins."io.containerd.snapshotter.v1.erofs"]
  root_path = "$work/erofs"
[plugins."io.containerd.differ.v1.erofs"]
  mkfs_options = ["-T0", "--mkfs-time", "--sort=none"]
[plugins."io.containerd.service.v1.diff-service"]
  default = ["erofs", "walking"]
END
}

configure_devmapper() {
    command -v dmsetup >/dev/null || { echo "no dmsetup in PATH" >&2; return 1; }
    modprobe -q dm_thin_pool 2>/dev/null || true
    dmsetup targets 2>/dev/null | grep -q '^thin-pool ' ||
        { echo "this kernel has no dm-thin-pool (scripts/lab.sh has)" >&2; return 1; }
    cat <<END
[plugins."io.containerd.snapshotter.v1.devmapper"]
  root_path = "$work/devmapper"
  pool_name = "$pool"
  base_image_size = "96MB"
  fs_type = "ext4"
  discard_blocks = true
END
}

make_pool() {
    local file
    for file in meta data; do
        truncate -s "$([[ $file = data ]] && echo 1G || echo 16M)" "$work/$file"
        devices+=("$(losetup --find --show "$work/$file")")
    done
    dmsetup create "$pool" --table "0 $(blockdev --getsz "${devices[1]}") thin-pool ${devices[0]} ${devices[1]} 128 32768"
}

start() {
    cat >"$work/config.toml" <<END
version = 3
root = "$work/root"
state = "$work/state"
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]
[grpc]
  address = "$work/sock"
END
    cat "$work/settings" >>"$work/config.toml"
    cat >"$work/martlet.toml" <<END
hypervisor = "${MARTLET_TEST_DRIVER:-qemu}"
paths.root = "$work/pods"
agent.start_timeout_s = $((30 * ${MARTLET_TEST_PATIENCE:-1}))
agent.request_timeout_s = $((30 * ${MARTLET_TEST_PATIENCE:-1}))
agent.heartbeat_timeout_ms = $((4000 * ${MARTLET_TEST_PATIENCE:-1}))
END
    PATH=$work/bin:$bin:$PATH MARTLET_CONFIG=$work/martlet.toml MARTLET_GUEST=$guest containerd --config "$work/config.toml" \
        >"$work/log" 2>&1 &
    daemon=$!
    for _ in $(seq 300); do ctr version >/dev/null 2>&1 && return; sleep 0.1; done
    tail -5 "$work/log"
    return 1
}

# A root on a disk of the machine.
check_disk() {
    expect "$name: an image is the root" \
        "$(run one sh -c 'echo kept >/file; cat /file; grep -c "^/dev/vd[a-z]* / ext4 rw" /proc/mounts')" $'kept\n1'
    expect "$name: a full root" "$(run three sh -c 'dd if=/dev/zero of=/fill bs=1M 2>&1 | grep -c "No space left"; echo goes on')" \
        $'1\ngoes on'
}

check_blockfile() {
    check_disk
    local file
    for file in "$work"/blockfile/snapshots/*; do
        # containerd removes what is no longer used when it has time.
        e2fsck -f -n "$file" >/dev/null 2>&1 || [[ ! -e $file ]] || { echo "FAILED  $name: e2fsck $file"; exit 1; }
    done
    echo "ok      $name: every image is whole"
}

check_devmapper() {
    check_disk
    expect "$name: the pool is whole" "$(dmsetup status "$pool" | grep -c -e ' rw ')" 1
}

# This containerd mounts the layers on the host and describes an overlay of directories: the root is a share. That of 2.2 and later leaves
# the layers to the runtime, which Tests/EndToEnd/DiskRootTests.swift does as that would.
check_erofs() {
    expect "$name: layers that are EROFS images are the root" \
        "$(run one sh -c 'echo kept >/file; cat /file; grep -c " / virtiofs rw" /proc/mounts')" $'kept\n1'
    local file
    for file in "$work"/erofs/snapshots/*/layer.erofs; do
        # The superblock's magic number (fs/erofs/erofs_fs.h), at byte 1024.
        expect "$name: $(basename "$(dirname "$file")")/layer.erofs" "$(od -A n -t x4 -j 1024 -N 4 "$file" | tr -d ' ')" e0f5e1e2
    done
}

for suite in "${@:-sid}"; do
    directory=$(scripts/debian-program.sh "$suite" containerd 2>/dev/null) || { echo "skipped containerd of $suite: it can't be fetched"; continue; }
    PATH=$directory/usr/bin:$PATH
    for snapshotter in ${MARTLET_SNAPSHOTTERS:-blockfile erofs devmapper}; do
        name="containerd $(containerd --version | awk '{print $3}'), $snapshotter"
        mkdir -p "$work/bin"
        if ! "configure_$snapshotter" >"$work/settings" 2>"$work/missing"; then
            echo "skipped $name: $(tail -n 1 "$work/missing")"
            continue
        fi
        [[ $snapshotter != devmapper ]] || make_pool
        start
        [[ -s $work/image.tar ]] || scripts/image.py "$image" "$work/image.tar"
        ctr image import --local --snapshotter "$snapshotter" "$work/image.tar" >/dev/null
        "check_$snapshotter"
        expect "$name: what it wrote is not in the next container" "$(run two sh -c 'ls /file 2>&1 | grep -c No')" 1
        expect "$name: nothing is left" "$(find "$work"/state/io.containerd.runtime.v2.task -mindepth 2; find "$work/pods" -name state.json)" ""
        stop
        rm -rf --one-file-system "$work"/{root,state}
    done
done
