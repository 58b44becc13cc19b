#!/bin/bash
# lab-root.sh [PATH…] : makes the root file system of the Bochs lab and prints the path of its image. In it are, at the paths
# they have here: some of this machine's programs with their libraries, busybox for what else a shell wants, Martlet's
# release executables, the guest image, and each PATH (files and directories). All executables are stripped.
#   MARTLET_BIN    where the executables are (.build/release)
#   MARTLET_GUEST  the guest image (.build/guest/own)
# The result is kept in ${MARTLET_CACHE:-~/.cache/martlet}/lab-root/<hash of all inputs>.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/need.sh"
repository=$(dirname "$here")
cache=${MARTLET_CACHE:-$HOME/.cache/martlet}/lab-root
binaries=$(realpath -s -m "${MARTLET_BIN:-$repository/.build/release}")
guest=$(realpath -s -m "${MARTLET_GUEST:-$repository/.build/guest/own}")
# Of busybox's applets some know less than the tests want.
programs="bash sh busybox cp mv rm mkdir mkfifo ln ls cat chmod chown stat sha256sum timeout env mount umount unshare setpriv ip"
executables="martlet martlet-vmm martlet-device containerd-shim-martlet-v2"
# A disk has whole cylinders of 16 heads and 63 sectors.
cylinder=$((16 * 63 * 512))

say() { echo "lab: $*" >&2; }

need e2fsprogs binutils busybox-static iproute2 >&2
paths=()
for name in $programs; do
    path=$(command -v "$name") || { say "no $name in PATH"; exit 1; }
    paths+=("$path")
done
for name in $executables; do
    [ ! -e "$binaries/$name" ] || paths+=("$binaries/$name")
done
[ ! -e "$guest/vmlinux" ] || paths+=("$guest"/{vmlinux,initramfs})
[ ! -e "$guest/initramfs.cpio" ] || paths+=("$guest/initramfs.cpio")
for path in "$@"; do
    [ -e "$path" ] || { say "no $path"; exit 1; }
    paths+=("$(realpath -s "$path")")
done

# Reads paths and prints the ELF files among them that need a dynamic loader.
dynamic() { while read -r file; do ! readelf -lW "$file" 2>/dev/null | grep -q INTERP || echo "$file"; done; }
mapfile -t files < <(find -L "${paths[@]}" -type f | sort -u)
# Lines of ldd: "name => /path (address)" and "/path/of/the/loader (address)".
mapfile -t libraries < <(printf '%s\n' "${files[@]}" | dynamic | xargs -r ldd 2>/dev/null |
    sed -n 's/.*=> \(\/[^ ]*\) (.*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | sort -u)
result=$cache/$({ cat "$0"; echo "$repository"; sha256sum "${files[@]}" "${libraries[@]}"; } | sha256sum | cut -c 1-32)
if [ -e "$result" ]; then
    touch "$result"
    echo "$result"
    exit 0
fi

mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/usr/{bin,sbin,lib,lib64} "$root"/{dev,etc,lab,proc,root,run,sys,tmp,var/lib,var/log} "$root$repository"
for directory in bin sbin lib lib64; do ln -s "usr/$directory" "$root/$directory"; done
ln -s /run "$root/var/run"
chmod 1777 "$root/tmp"
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
for path in "${files[@]}" "${libraries[@]}"; do
    mkdir -p "$root$(dirname "$path")"
    # A guest's kernel is an ELF file, too, but martlet wants it as it is.
    case $path in
    */vmlinux) cp "$path" "$root$path" ;;
    *) strip -o "$root$path" "$path" 2>/dev/null || cp "$path" "$root$path" ;;
    esac
done
for applet in $(busybox --list); do
    [ -e "$root/usr/bin/$applet" ] || [ -e "$root/usr/sbin/$applet" ] || ln -s busybox "$root/usr/bin/$applet"
done
# Room for what the command writes; it takes none on the host's disk until then.
size=$(($(du -s --block-size=1 "$root" | cut -f 1) * 5 / 4 + (1 << 30)))
truncate -s $(((size + cylinder - 1) / cylinder * cylinder)) "$work/image"
mkfs.ext4 -q -F -O ^has_journal,^metadata_csum -m 0 -E root_owner=0:0 -d "$root" "$work/image"
mv "$work/image" "$result"
# Of old ones the two that were used last stay.
find "$cache" -maxdepth 1 -type f -regextype posix-extended -regex '.*/[0-9a-f]{32}' -printf '%T@ %p\n' |
    sort -rn | tail -n +4 | cut -d ' ' -f 2- | xargs -r -d '\n' rm -f
echo "$result"
