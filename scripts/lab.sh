#!/bin/bash
# lab.sh [OPTION…] [--] COMMAND [ARGUMENT…] : runs a command as root on a machine that has a working /dev/kvm, whatever
# this machine has. QEMU emulates a processor with AMD's virtualization, Debian's kernel drives it with kvm_amd, and the
# root file system is this machine's, below an overlay: what the command changes is lost. See docs/lab.md.
#   -m MIB      memory (MARTLET_LAB_MEMORY; 6144)
#   -c CPUS     processors (MARTLET_LAB_CPUS; 2)
#   -t SECONDS  time limit from the start of the lab (MARTLET_LAB_TIMEOUT; 600)
#   -o DIR      what is written into this directory comes back (MARTLET_LAB_OUT; made if missing)
# The command has this directory, PATH, HOME, LANG and every MARTLET_ variable; MARTLET_LAB=1 says where it is. Its output
# is this script's, and so is its exit status; but 124: past the time limit; 125: the lab did not come up or broke down.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/need.sh"

memory=${MARTLET_LAB_MEMORY:-6144} cpus=${MARTLET_LAB_CPUS:-2} limit=${MARTLET_LAB_TIMEOUT:-600} out=${MARTLET_LAB_OUT:-}

broken() { echo "lab: $*" >&2; exit 125; }

while getopts m:c:t:o: option; do
    case $option in
    m) memory=$OPTARG ;;
    c) cpus=$OPTARG ;;
    t) limit=$OPTARG ;;
    o) out=$OPTARG ;;
    *) exit 125 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { sed -n '2,11s/^# \?//p' "$0" >&2; exit 125; }
for number in "$memory" "$cpus" "$limit"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || broken "not a number above 0: $number"
done
# The file server keeps owners as they are.
[ "$(id -u)" = 0 ] || broken "must be run as root"
need qemu-system-x86 qemu-system-common e2fsprogs >&2 || exit 125
image=$("$here/lab-image.sh") || exit 125
[ -z "$out" ] || { mkdir -p "$out" && out=$(realpath "$out"); } || exit 125

work=$(mktemp -d "${TMPDIR:-/tmp}/martlet-lab.XXXXXX")
children=()
clean_up() {
    [ ${#children[@]} = 0 ] || kill "${children[@]}" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

write_job() {
    local name variables=(PATH HOME LANG)
    mapfile -t -O 3 variables < <(compgen -e MARTLET_)
    for name in "${variables[@]}"; do
        case $name in
        MARTLET_LAB | MARTLET_LAB_*) ;;
        *) [ -z "${!name+set}" ] || printf '%s=%s\0' "$name" "${!name}" ;;
        esac
    done >"$work/environment"
    printf 'MARTLET_LAB=1\0' >>"$work/environment"
    printf '%s\0' "$@" >"$work/arguments"
    printf '%s' "$(pwd -P)" >"$work/directory"
    [ -z "$out" ] || printf '%s' "$out" >"$work/writable"
}

# serve NAME DIRECTORY CACHE : a file server for QEMU's next start; it ends with QEMU.
serve() {
    setpriv --pdeathsig TERM /usr/lib/qemu/virtiofsd --socket-path="$work/$1.sock" -o source="$2" -o cache="$3" \
        -o sandbox=chroot -f >"$work/$1.log" 2>&1 &
    children+=($!)
    local tries
    for ((tries = 0; tries < 500; tries++)); do
        [ ! -S "$work/$1.sock" ] || return 0
        kill -0 $! 2>/dev/null || break
        sleep 0.01
    done
    cat "$work/$1.log" >&2
    broken "no file server for $2"
}

share() { echo "-chardev socket,id=$1,path=$work/$1.sock -device vhost-user-fs-pci,chardev=$1,tag=$1,queue-size=1024"; }

port() { echo "-chardev file,id=$1,path=$2,append=on -device virtserialport,chardev=$1,name=lab.$1"; }

# Without XSAVE, as QEMU 7.2 does not intercept XSETBV: KVM would restore an XCR0 that its guest did not set, and the
# guest's processes would lose vector registers to each other. Without what costs an emulated processor a fifth of its
# time: page tables of five levels, a change of flags at each copy from user space, copies byte by byte.
processor=max,+svm,+npt,-xsave,-la57,-smap,-smep,-umip,-pku,-erms,-fsrm
# What is slow only under emulation: zeroing pages twice, waiting for RCU; random addresses have all code translated anew.
words="console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on tsc=reliable no_timer_check apparmor=0 audit=0
    init_on_alloc=0 randomize_kstack_offset=off rcupdate.rcu_expedited=1 cryptomgr.notests norandmaps
    nmi_watchdog=0 watchdog_thresh=60 softlockup_panic=1
    lab.job=$work lab.modules=$image/modules"

# Starts the machine in the background, with descriptors 5 and 6 for the command's output.
start_machine() {
    local shares
    rm -f "$work"/{disk,status,root.sock,writable.sock}
    serve root / always
    shares=$(share root)
    if [ -n "$out" ]; then
        serve writable "$out" auto
        shares+=" $(share writable)"
    fi
    # The disk's blocks are taken from the host when they are written, and given back when they are discarded.
    truncate -s 16G "$work/disk"
    mkfs.ext4 -q -F -O ^has_journal -m 0 "$work/disk" || broken "cannot make the disk"
    # shellcheck disable=SC2046,SC2086
    setpriv --pdeathsig TERM timeout --foreground -k 5 "$limit" qemu-system-x86_64 \
        -M q35,memory-backend=memory -accel tcg,thread=multi -cpu "$processor" -smp "$cpus" -m "$memory" \
        -object memory-backend-memfd,id=memory,size="${memory}M",share=on \
        -nodefaults -no-user-config -display none -no-reboot -monitor none -serial "file:$work/console" \
        -kernel "$image/vmlinux" -initrd "$image/initramfs" -append "${words//$'\n'/ }" $shares \
        -drive "if=none,id=disk,file=$work/disk,format=raw,cache=unsafe,discard=unmap" -device virtio-blk-pci,drive=disk \
        -device virtio-serial-pci -add-fd fd=5,set=1 $(port stdout /dev/fdset/1) \
        -add-fd fd=6,set=2 $(port stderr /dev/fdset/2) $(port status "$work/status") </dev/null >"$work/qemu.log" 2>&1 &
    machine=$!
    children+=("$machine")
}

is_up() { grep -q up "$work/status" 2>/dev/null; }

# Waits until the command runs, or the machine has ended, or for so many seconds, at which it fails.
wait_until_up() {
    local end=$((SECONDS + $1))
    until is_up; do
        kill -0 "$machine" 2>/dev/null || return 0
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}

write_job "$@"
# Output goes through pipes of our own, as QEMU makes what it writes to nonblocking.
exec 5> >(exec cat) && relays=$!
exec 6> >(exec cat >&2) && relays+=" $!"
start_machine
# An emulated machine hangs while it starts once in a long while; until the command runs nothing is lost by a new one.
for ((tries = 1; tries < 3; tries++)); do
    if wait_until_up 90; then break; fi
    echo "lab: not up after 90 s, starting again; the console's end:" >&2
    tail -n 5 "$work/console" >&2 || true
    kill "$machine" || true
    wait "$machine" || true
    ! is_up || broken "the lab came up late and was ended"
    children=()
    start_machine
done
exec 5>&- 6>&-
ended=0
wait "$machine" || ended=$?
# shellcheck disable=SC2086
wait $relays || true

status=$(cat "$work/status" 2>/dev/null || true)
late=""
if [ "$ended" = 124 ] || [ "$ended" = 137 ]; then late=1; fi
case $status in
*exit\ *) exit "${status##*exit }" ;;
up) [ -z "$late" ] || { echo "lab: the time limit of $limit s is over" >&2; exit 124; } ;;
esac
grep -v 'warning: TCG' "$work/qemu.log" >&2 || true
tail -n 30 "$work/console" >&2 2>/dev/null || true
case $status in
up) broken "the lab broke down (QEMU's exit status $ended)" ;;
*) broken "the lab did not come up${late:+ within $limit s} (QEMU's exit status $ended)" ;;
esac
