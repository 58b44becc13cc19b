#!/bin/bash
# deb-check.sh : tries martlet-containerd-setup, and the Debian packages of `make deb` in a clean Debian 12 with engines: installation, upgrade
# while pods run, removal and purge. Needs root. Prints a line for each check, and fails when one of them fails.
#   RELEASE  the release of Debian (bookworm)
# deb-check-inside.sh is what runs in there, in namespaces of its own: no mount, process or interface is left.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh
need mmdebstrap erofs-utils python3 busybox-static
scripts/containerd-setup-check.sh
make --no-print-directory deb
version=$(scripts/version.sh)
work=$(mktemp -d /var/tmp/martlet-deb-check.XXXXXX)
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root

echo "== a clean Debian"
mmdebstrap --quiet --variant=minbase --skip=cleanup/apt/lists "${RELEASE:-bookworm}" "$root" 2>"$work/log" ||
    { tail -n 20 "$work/log" >&2; exit 1; }
# Nothing is started by a package here.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"
mkdir -p "$root/check/new"
cp .build/deb/*.deb "$root/check/"
scripts/image.py docker.io/library/busybox:latest "$root/check/image.tar"
cp /bin/busybox scripts/deb-check-inside.sh "$root/check/"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"

# The same programs as a higher version, with a guest that can be told apart: its kernel has another name, and its root image
# another agent (some bytes more).
higher=$version+1
for file in "$root"/check/martlet*.deb; do
    tree=$work/package
    rm -rf "$tree"
    dpkg-deb -R "$file" "$tree"
    sed -i "s/^Version: .*/Version: $higher/; s/(\([>=]*\) $version)/(\1 $higher)/" "$tree/DEBIAN/control"
    guest=$tree/usr/share/martlet/guest
    if [[ -e $guest/vmlinux ]]; then
        LC_ALL=C sed -i 's/-martlet/-mart1et/g' "$guest/vmlinux"
        { cat guest-agent/.build/release/martlet-agent; head -c 4096 /dev/zero; } >"$work/agent"
        scripts/guest-root.sh "$work/agent" "$guest/root.erofs"
        chmod 644 "$guest/root.erofs"
    fi
    if [[ -e $tree/etc/martlet/martlet.toml ]]; then echo "# Of the higher version." >>"$tree/etc/martlet/martlet.toml"; fi
    name=$(basename "$file")
    dpkg-deb --root-owner-group -Zgzip -z1 -b "$tree" "$root/check/new/${name/$version/$higher}" >/dev/null
done

echo "== in it"
# pivot_root, not chroot: a machine's jails change their root themselves.
unshare --mount --pid --fork --kill-child bash -c '
    set -e
    cd "$1"
    mount --make-rprivate /
    mount --bind . .
    cd "$1"
    mount -t proc proc proc
    mount --rbind /sys sys
    mount --rbind /dev dev
    mount -t tmpfs -o mode=755 tmpfs run
    mkdir old
    pivot_root . old
    umount -l old
    rmdir old
    exec env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
        bash /check/deb-check-inside.sh "$2" "$3"
' - "$root" "$version" "$higher"
