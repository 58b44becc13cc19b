#!/bin/bash
# containers.sh [some | starts COUNT] : runs containers over the built-in VMM inside the Bochs lab. `some` checks exit code,
# output and input with three containers; `starts` starts COUNT one after the other. Ends at the first failure.
set -uo pipefail
work=/lab/containers
rm -rf "$work"
mkdir -p "$work/rootfs"/{bin,dev,proc,sys,tmp}
cp "$(command -v busybox)" "$work/rootfs/bin/"
chroot "$work/rootfs" /bin/busybox --install -s /bin
export PATH="${MARTLET_BIN:-$PWD/.build/release}:$PATH" MARTLET_GUEST=${MARTLET_GUEST:-$PWD/.build/guest/own}
# An emulated guest is slow, by the emulated clock too.
cat >"$work/martlet.toml" <<'CONFIGURATION'
hypervisor = "kvm"
agent.start_timeout_s = 300
agent.request_timeout_s = 300
agent.heartbeat_timeout_ms = 60000
CONFIGURATION
count=0

fail() { echo "FAILED  $*"; exit 1; }
passed() { echo "ok      $* ($(cut -d ' ' -f 1 /proc/uptime) s)"; }

# bundle PROGRAM ARGUMENT… : makes a bundle; its directory is $bundle, the container's name $id.
bundle() {
    count=$((count + 1)) id=c$count bundle=$work/bundle-$count
    mkdir "$bundle"
    martlet spec --bundle "$bundle" --rootfs "$work/rootfs" --no-terminal -- "$@"
}

run() { martlet --config "$work/martlet.toml" run --bundle "$bundle" "$id"; }

# code WANTED SCRIPT : the exit code of a container that runs a shell's script.
code() {
    bundle /bin/sh -c "$2"
    run >"$work/out" 2>"$work/err"
    local got=$?
    [ $got = "$1" ] || fail "exit code $1: $got; $(cat "$work/err")"
    [ ! -s "$work/out" ] && [ ! -s "$work/err" ] || fail "exit code $1: it wrote $(cat "$work/out" "$work/err")"
    passed "exit code $1"
}

output() {
    bundle /bin/sh -c 'seq 1 20000; echo for stderr >&2; exit 3'
    run >"$work/out" 2>"$work/err"
    [ $? = 3 ] || fail "output: $(cat "$work/err")"
    cmp "$work/out" <(seq 1 20000) || fail "output: stdout differs"
    [ "$(cat "$work/err")" = "for stderr" ] || fail "output: stderr is $(cat "$work/err")"
    passed "output"
}

input() {
    bundle /bin/sh -c 'sha256sum; echo end'
    [ "$(seq 1 20000 | run 2>"$work/err")" = "$(seq 1 20000 | sha256sum)"$'\n'end ] || fail "input: $(cat "$work/err")"
    passed "input"
}

# Names of processes of Martlet's, cut off at 15 bytes.
processes() { cat /proc/[0-9]*/comm 2>/dev/null | grep -E '^(martlet|containerd-shim)'; }

no_process_left() {
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        processes >/dev/null || return 0
        sleep 0.1
    done
    fail "left: $(processes)"
}

# starts COUNT : containers one after the other.
starts() {
    local number
    for ((number = 1; number <= $1; number++)); do
        bundle /bin/sh -c "echo start $number"
        [ "$(run 2>"$work/err")" = "start $number" ] || fail "start $number of $1: $(cat "$work/err")"
        rm -rf "$bundle"
        no_process_left
        passed "start $number of $1"
    done
}

case ${1:-some} in
some) code 37 'exit 37' && output && input && no_process_left ;;
starts) starts "${2:?how many}" ;;
*) fail "usage: containers.sh [some | starts COUNT]" ;;
esac
