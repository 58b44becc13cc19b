#!/bin/bash
# Makes what a guest boots from, in .build/guest/<own|stock>/: the kernel (vmlinux, and bzImage or vmlinuz), initramfs, with
# the own kernel root.erofs, and manifest (key=value lines: versions, sizes, hashes). Does nothing when the inputs are the same as last time.
#   KERNEL=own      Debian's kernel source with configs/kernel/ (default)
#   KERNEL=stock    Debian's cloud kernel with the modules it needs
#   KERNEL=/DIR     your own: /DIR holds vmlinux or bzImage or vmlinuz, and modules/ if there are any; see docs/guest.md
#   AGENT=FILE      the built martlet-agent, or another static program that the guest runs as its first process
#   GUEST=NAME      the directory's name, where it is not to be own, stock or the one of /DIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

kind=${KERNEL:-own}
agent=$(realpath "${AGENT:?set AGENT to the built martlet-agent}")
cd "$here/.."
# What the own guest may weigh, in bytes.
max_vmlinux=22000000 max_initramfs=8000000

case $kind in
own) make_kernel=$here/guest-kernel.sh ;;
stock) make_kernel=$here/guest-kernel-stock.sh ;;
/*) make_kernel="" ;;
*) echo "guest: KERNEL is own, stock or an absolute directory, not $kind" >&2; exit 2 ;;
esac
[ -f "$agent" ] || { echo "guest: no agent at $agent" >&2; exit 1; }

if [ -n "$make_kernel" ]; then
    # Only the name of the result, which changes with what goes into it.
    kernel=$("$make_kernel" --key)
    identity=$kernel
else
    kernel=$kind kind=$(basename "$kind")
    identity=$(cd "$kernel" && find . -type f -exec sha256sum {} + | sort)
fi
out=.build/guest/${GUEST:-$kind}
inputs=$({ echo "$identity"; sha256sum <"$agent"; cat "$here"/{guest,guest-initramfs,guest-root}.sh "$here/cpio.py"; } | sha256sum | cut -c 1-64)

make_guest() {
    local image images
    [ -z "$make_kernel" ] || kernel=$("$make_kernel")
    images=$(cd "$kernel" && ls vmlinux bzImage vmlinuz 2>/dev/null || true)
    [ -n "$images" ] || { echo "guest: neither vmlinux nor bzImage nor vmlinuz in $kernel" >&2; exit 1; }
    mkdir -p "$out"
    rm -f "$out"/{vmlinux,bzImage,vmlinuz,initramfs.cpio,root.erofs,manifest}
    for image in $images; do
        # A copy, which outlives the cache; where the file system can, both share their blocks.
        cp --reflink=auto "$kernel/$image" "$out/$image"
    done
    "$here/guest-initramfs.sh" "$kernel" "$agent" "$out/initramfs"
    # Other kernels may not have what it takes to mount it, and other first processes may want to write to their root.
    if [ -n "$make_kernel" ] && [ "$kind" = own ] && [ -z "${GUEST:-}" ]; then "$here/guest-root.sh" "$agent" "$out/root.erofs"; fi
    {
        echo "kernel=$kind"
        echo "version=$(cat "$kernel/version" 2>/dev/null || echo unknown)"
        echo "source=$(cat "$kernel/source" 2>/dev/null || echo unknown)"
        for image in initramfs.cpio root.erofs; do [ ! -e "$out/$image" ] || images+=" $image"; done
        for image in $images initramfs; do
            echo "$image.size=$(stat -c %s "$out/$image")"
            echo "$image.sha256=$(sha256sum <"$out/$image" | cut -c 1-64)"
        done
        # The least memory of a machine, in MiB, that the kernel unpacks its initramfs in.
        case $kind in own) echo "memory_mib=96" ;; stock) echo "memory_mib=128" ;; esac
        echo "modules=$(cat "$kernel/modules/order" 2>/dev/null | wc -l)"
        echo "inputs=$inputs"
    } >"$out/manifest.new"
    mv "$out/manifest.new" "$out/manifest"
}

# Old kernels leave the cache: of each kind the four that were used last stay.
prune() {
    touch "$kernel"
    local cache name
    cache=$(dirname "$kernel")
    for name in 'stock-[0-9a-f]{64}' '[0-9a-f]{64}'; do
        find "$cache" -maxdepth 1 -type d -regextype posix-extended -regex ".*/$name" -printf '%T@ %p\n' | sort -rn | tail -n +5 | cut -d ' ' -f 2- | xargs -r -d '\n' rm -rf
    done
}

if ! grep -qx "inputs=$inputs" "$out/manifest" 2>/dev/null; then
    make_guest
    [ -z "$make_kernel" ] || prune
fi

value() { sed -n "s/^$1=//p" "$out/manifest"; }
sizes=$(sed -n 's/^\([^.]*\)\.size=\(.*\)/\1 \2 bytes/p' "$out/manifest" | paste -sd ';' | sed 's/;/, /g')
echo "guest ${GUEST:-$kind}: Linux $(value version), $sizes, $(value modules) modules"
if [ "$kind" = own ]; then
    [ "$(value vmlinux.size)" -le $max_vmlinux ] || { echo "guest: vmlinux is larger than $max_vmlinux bytes" >&2; exit 1; }
    [ "$(value initramfs.size)" -le $max_initramfs ] || { echo "guest: initramfs is larger than $max_initramfs bytes" >&2; exit 1; }
fi
