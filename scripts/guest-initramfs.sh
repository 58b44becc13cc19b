#!/bin/bash
# guest-initramfs.sh KERNEL AGENT OUT: writes the guest's initial file system.
# KERNEL is a directory as guest-kernel.sh or guest-kernel-stock.sh print it (its modules, if any, go along);
# AGENT is the static program that becomes /init. The same inputs give the same bytes.
# Without modules OUT.cpio is written, too: the same, not packed, which starts quicker.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/need.sh"

[ $# = 3 ] || { echo "usage: guest-initramfs.sh KERNEL AGENT OUT" >&2; exit 2; }
kernel=$1 agent=$2 out=$3
[ -f "$agent" ] || { echo "guest: no agent at $agent" >&2; exit 1; }
need python3 lz4 zstd binutils
# The guest has no dynamic loader; a program that wants one would be a panic without a word.
if readelf -lW "$agent" | grep INTERP >/dev/null; then
    echo "guest: $agent is not a static program" >&2
    exit 1
fi

# The first way that keeps below the target. LZ4 unpacks quickest (under emulation 0.15 s before zstd); zstd's level 12
# takes a second to pack, 19 takes ten and more. -l: the only LZ4 format that the kernel knows.
target=8000000
ways=("lz4 -q -l -12 -c" "zstd -q -12 -T1 -c" "zstd -q -19 -T1 -c")
# With modules there is no target, so nothing to wait for.
[ ! -e "$kernel/modules/order" ] || ways=("zstd -q -12 -T1 -c")
trap 'rm -f "$out.cpio.new" "$out.new"' EXIT
{
    for dir in dev lib lib/martlet proc run sys tmp; do echo "dir /$dir 0755"; done
    # The kernel opens /dev/console for /init before anything is mounted.
    echo "node /dev/console 0600 5 1"
    echo "node /dev/null 0666 1 3"
    echo "file /init 0755 $agent"
    if [ -e "$kernel/modules/order" ]; then
        echo "dir /lib/martlet/modules 0755"
        echo "file /lib/martlet/modules/order 0644 $kernel/modules/order"
        while read -r module; do
            echo "file /lib/martlet/modules/$module 0644 $kernel/modules/$module"
        done <"$kernel/modules/order"
    fi
} | python3 "$here/cpio.py" >"$out.cpio.new"
for way in "${ways[@]}"; do
    $way "$out.cpio.new" >"$out.new"
    [ "$(stat -c %s "$out.new")" -gt $target ] || break
done
mv "$out.new" "$out"
# With modules it would take more memory than the packed one saves time.
if [ -e "$kernel/modules/order" ]; then rm -f "$out.cpio"; else mv "$out.cpio.new" "$out.cpio"; fi
