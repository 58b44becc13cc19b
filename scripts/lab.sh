#!/bin/bash
# lab.sh [OPTION…] [--] COMMAND [ARGUMENT…] : runs a command as root on a machine that has a working /dev/kvm, whatever
# this machine has. An emulator makes a processor with virtualization in software, Debian's kernel drives it with KVM, and
# what the command changes is lost. See docs/lab.md.
#   --engine ENGINE  qemu: an AMD processor in QEMU, and this machine's root file system below an overlay
#                    bochs: an Intel processor in Bochs, and a small root file system (MARTLET_LAB_ENGINE; qemu)
#   -m MIB           memory (MARTLET_LAB_MEMORY; 6144, Bochs 1024)
#   -c CPUS          processors (MARTLET_LAB_CPUS; 2, Bochs 1)
#   -t SECONDS       time limit from the start of the lab (MARTLET_LAB_TIMEOUT; 600)
#   -o DIR           qemu: what is written into this directory comes back (MARTLET_LAB_OUT; made if missing)
#   --model NAME     bochs: the processor, as `bochs --help cpu` lists them (MARTLET_LAB_MODEL; corei7_haswell_4770)
#   --add PATH       bochs: this file or directory is there too, at the same path; may be given more than once
# The command has PATH, HOME, LANG and every MARTLET_ variable, and MARTLET_LAB=1. Its directory is this one, in Bochs that
# of Martlet's tree. Its output is this script's, and so is its exit status; but 124: past the time limit; 125: the lab did
# not come up or broke down.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/need.sh"

engine=${MARTLET_LAB_ENGINE:-qemu} memory=${MARTLET_LAB_MEMORY:-} cpus=${MARTLET_LAB_CPUS:-} limit=${MARTLET_LAB_TIMEOUT:-600}
out=${MARTLET_LAB_OUT:-} model=${MARTLET_LAB_MODEL:-} added=()

broken() { echo "lab: $*" >&2; exit 125; }

usage() { sed -n '2,/^set /s/^# \?//p' "$0" >&2; exit 125; }

while [ $# -gt 0 ]; do
    case $1 in
    --) shift; break ;;
    -m | -c | -t | -o | --engine | --model | --add) [ $# -ge 2 ] || broken "$1 needs a value" ;;
    -*) broken "no option $1" ;;
    *) break ;;
    esac
    case $1 in
    --engine) engine=$2 ;;
    --model) model=$2 ;;
    --add) added+=("$2") ;;
    -m) memory=$2 ;;
    -c) cpus=$2 ;;
    -t) limit=$2 ;;
    -o) out=$2 ;;
    esac
    shift 2
done
[ $# -gt 0 ] || usage

# An engine defines:
#   default_memory, default_cpus, engine_name
#   prepare    refuses what it cannot do, installs packages, makes images; sets $directory, where the command runs
#   start      starts the machine; sets $machine, its process. Descriptors 5 and 6 take the command's stdout and stderr.
#              Appends to $work/status the lines "up" when the command has started and "exit N" when it has ended;
#              writes the kernel's console to $work/console, and what the emulator says to $work/log
#   show_log   shows what of $work/log helps when the lab broke down
case $engine in
qemu | bochs) . "$here/lab/$engine.sh" ;;
*) broken "no engine $engine: qemu or bochs" ;;
esac
memory=${memory:-$default_memory} cpus=${cpus:-$default_cpus}
for number in "$memory" "$cpus" "$limit"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || broken "not a number above 0: $number"
done
prepare

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
    printf '%s' "$directory" >"$work/directory"
    [ -z "$out" ] || printf '%s' "$out" >"$work/writable"
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
start
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
show_log
tail -n 60 "$work/console" >&2 2>/dev/null || true
case $status in
up) broken "the lab broke down ($engine_name's exit status $ended)" ;;
*) broken "the lab did not come up${late:+ within $limit s} ($engine_name's exit status $ended)" ;;
esac
