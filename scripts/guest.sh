#!/bin/bash
# Makes what a guest boots from, in .build/guest/<own|stock>/: the kernel (vmlinux, and bzImage or vmlinuz), initramfs, and
# manifest (key=value lines: versions, sizes, hashes). Does nothing when the inputs are the same as last time.
#   KERNEL=own      Debian's kernel source with configs/kernel/ (default)
#   KERNEL=stock    Debian's cloud kernel with the modules it needs
#   KERNEL=/DIR     your own: /DIR holds vmlinux or bzImage or vmlinuz, and modules/ if there are any; see docs/guest.md
#   AGENT=FILE      the built martlet-agent
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/need.sh"
cd "$here/.."

kind=${KERNEL:-own}
agent=${AGENT:?set AGENT to the built martlet-agent}
# What the own guest may weigh, in bytes.
max_vmlinux=22000000 max_initramfs=8000000

case $kind in
own) kernel=$("$here/guest-kernel.sh") ;;
stock) kernel=$("$here/guest-kernel-stock.sh") ;;
/*) kernel=$kind kind=$(basename "$kind") ;;
*) echo "guest: KERNEL is own, stock or an absolute directory, not $kind" >&2; exit 2 ;;
esac
[ -f "$agent" ] || { echo "guest: no agent at $agent" >&2; exit 1; }

out=.build/guest/$kind
inputs=$({ echo "$kernel"; sha256sum <"$agent"; cat "$here"/{guest,guest-initramfs}.sh "$here/cpio.py"; } | sha256sum | cut -c 1-64)
images=$(cd "$kernel" && ls vmlinux bzImage vmlinuz 2>/dev/null || true)
[ -n "$images" ] || { echo "guest: neither vmlinux nor bzImage nor vmlinuz in $kernel" >&2; exit 1; }

if ! grep -qx "inputs=$inputs" "$out/manifest" 2>/dev/null; then
    mkdir -p "$out"
    rm -f "$out"/{vmlinux,bzImage,vmlinuz,manifest}
    for image in $images; do
        # A copy: the guest must not change when the cache is cleaned. Where the file system can, it shares the blocks.
        cp --reflink=auto "$kernel/$image" "$out/$image"
    done
    "$here/guest-initramfs.sh" "$kernel" "$agent" "$out/initramfs"
    {
        echo "kernel=$kind"
        echo "version=$(cat "$kernel/version" 2>/dev/null || echo unknown)"
        echo "source=$(cat "$kernel/source" 2>/dev/null || echo unknown)"
        for file in $images initramfs; do
            echo "$file.size=$(stat -c %s "$out/$file")"
            echo "$file.sha256=$(sha256sum <"$out/$file" | cut -c 1-64)"
        done
        echo "modules=$(cat "$kernel/modules/order" 2>/dev/null | wc -l)"
        echo "inputs=$inputs"
    } >"$out/manifest.new"
    mv "$out/manifest.new" "$out/manifest"
fi

value() { sed -n "s/^$1=//p" "$out/manifest"; }
echo "guest $kind: Linux $(value version), $(for file in $images initramfs; do printf '%s %s bytes, ' "$file" "$(value $file.size)"; done)$(value modules) modules"
if [ "$kind" = own ]; then
    [ "$(value vmlinux.size)" -le $max_vmlinux ] || { echo "guest: vmlinux is larger than $max_vmlinux bytes" >&2; exit 1; }
    [ "$(value initramfs.size)" -le $max_initramfs ] || { echo "guest: initramfs is larger than $max_initramfs bytes" >&2; exit 1; }
fi
