#!/bin/bash
# lab-check.sh [qemu|bochs] : checks that the lab tells the truth: whatever goes wrong in it is no success here, its
# /dev/kvm is real, and nothing of it stays.
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${1:-qemu}
work=$(mktemp -d /tmp/martlet-lab-check.XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir "$work"/{kept,temporary}
export TMPDIR=$work/temporary
failures=0

# lab NAME STATUS ARGUMENT… : runs the lab with the arguments; its output is in $work/out and $work/err.
lab() {
    local name=$1 wanted=$2 got=0
    shift 2
    scripts/lab.sh --engine "$engine" "$@" >"$work/out" 2>"$work/err" || got=$?
    [ "$got" = "$wanted" ] || report "$name: exit status $got and not $wanted"
}

report() {
    echo "lab check: $*" >&2
    sed 's/^/    /' "$work/err" >&2
    failures=$((failures + 1))
}

expect() {
    local name=$1
    shift
    "$@" || report "$name"
}

expect_nothing_left() {
    local tries
    expect "no file is left" [ -z "$(ls "$TMPDIR")" ]
    # The file servers need a moment to see that QEMU is gone.
    for ((tries = 0; tries < 50; tries++)); do pgrep -f "$TMPDIR/martlet-lab" >/dev/null || break; sleep 0.1; done
    expect "no process is left" [ $tries -lt 50 ]
}

# What is checked inside says what failed; 37 comes only from the end of the script.
check_qemu() {
    cat >"$work/inside" <<'INSIDE'
set -euo pipefail
grep -qw svm /proc/cpuinfo || { echo "no svm flag"; exit 1; }
# KVM_GET_API_VERSION and KVM_CREATE_VM (include/uapi/linux/kvm.h)
perl -e 'open K, "+<", "/dev/kvm" or die "open: $!"; ioctl(K, 0xae00, 0) == 12 or die "API";
         defined ioctl(K, 0xae01, 0) or die "create: $!"'
for device in /dev/net/tun /dev/vhost-net /dev/vhost-vsock /dev/loop-control /dev/fuse; do
    [ -c $device ] || { echo "no $device"; exit 1; }
done
for module in veth bridge macvlan ipvlan dummy tap nf_tables br_netfilter; do modprobe $module; done
for directory in /dev/pts /dev/shm /run /sys/fs/cgroup /lab; do grep -q " $directory " /proc/mounts; done
grep -qw memory /sys/fs/cgroup/cgroup.subtree_control
[ "$(pwd)" = "$1" ] && [ "$MARTLET_CHECK" = "two
lines" ] && [ "$MARTLET_LAB" = 1 ]
echo kept >"$2/kept"
echo lost >"$1/lost-in-the-lab"
echo "for stderr" >&2
perl -e 'print pack("C*", 0 .. 255) x 20000'
exit 37
INSIDE
    MARTLET_CHECK=$'two\nlines' lab "a status comes back" 37 -o "$work/kept" bash "$work/inside" "$PWD" "$work/kept"
    expect "output is intact" cmp "$work/out" <(perl -e 'print pack("C*", 0 .. 255) x 20000')
    expect "stderr is apart" grep -qx "for stderr" "$work/err"
    expect "what is written to the directory comes back" grep -qx kept "$work/kept/kept"
    expect "what is written elsewhere is lost" [ ! -e lost-in-the-lab ]
    lab "death by a signal" 137 bash -c 'kill -9 $$'
    lab "a crash of the lab's kernel is no success" 125 bash -c 'echo c >/proc/sysrq-trigger; sleep 100'
    lab "a lab too small to start is no success" 125 -m 16 -t 30 true
    lab "a processor that takes no interrupts ends the lab" 125 chrt -f 99 taskset -c 1 sh -c 'while :; do :; done'
    expect "and is named" grep -q "processor 1 has taken no interrupts" "$work/err"
    lab "past the time limit" 124 -t 45 sleep 1000
}

check_bochs() {
    # The lab has no perl.
    cat >"$work/kvm.c" <<'PROGRAM'
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
int main(void) {
    int kvm = open("/dev/kvm", O_RDWR);
    return kvm < 0 ? 1 : ioctl(kvm, KVM_GET_API_VERSION, 0) != 12 ? 2 : ioctl(kvm, KVM_CREATE_VM, 0) < 0 ? 3 : 0;
}
PROGRAM
    gcc -static -o "$work/kvm" "$work/kvm.c"
    perl -e 'print pack("C*", 0 .. 255) x 4000' >"$work/bytes"
    cat >"$work/inside" <<'INSIDE'
set -eu
grep -qw vmx /proc/cpuinfo || { echo "no vmx flag"; exit 1; }
"$2/kvm" || { echo "KVM: $?"; exit 1; }
for device in /dev/net/tun /dev/vhost-net /dev/vhost-vsock /dev/loop-control; do
    [ -c $device ] || { echo "no $device"; exit 1; }
done
for directory in /dev/pts /dev/shm /run /sys/fs/cgroup; do grep -q " $directory " /proc/mounts; done
grep -qw memory /sys/fs/cgroup/cgroup.subtree_control
[ "$(pwd)" = "$1" ] && [ "$MARTLET_CHECK" = "two
lines" ] && [ "$MARTLET_LAB" = 1 ]
echo "for stderr" >&2
cat "$2/bytes"
exit 37
INSIDE
    MARTLET_CHECK=$'two\nlines' lab "a status comes back" 37 --add "$work/kvm" --add "$work/bytes" --add "$work/inside" \
        sh "$work/inside" "$PWD" "$work"
    expect "output is intact" cmp "$work/out" "$work/bytes"
    expect "stderr is apart" grep -qx "for stderr" "$work/err"
    lab "death by a signal" 137 sh -c 'kill -9 $$'
    lab "a crash of the lab's kernel is no success" 125 sh -c 'echo c >/proc/sysrq-trigger; sleep 100'
    expect "and its console is shown" grep -q "Kernel panic - not syncing" "$work/err"
    lab "a lab too small to start is no success" 125 -m 16 -t 30 true
    lab "past the time limit" 124 -t 60 sh -c 'while :; do :; done'
    lab "two processors are refused" 125 -c 2 true
    lab "an unknown model is refused" 125 --model pentium_9 true
    lab "a file that is not there is refused" 125 --add "$work/missing" true
}

case $engine in
qemu | bochs) "check_$engine" ;;
*) echo "usage: lab-check.sh [qemu|bochs]" >&2; exit 2 ;;
esac
expect_nothing_left
[ $failures = 0 ] || exit 1
echo "the lab is honest ($engine)"
