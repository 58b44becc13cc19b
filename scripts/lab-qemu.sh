#!/bin/bash
# Fetches the QEMU that emulates the lab's machine, from bookworm-backports, without installing it, and prints the
# directory that holds it: bin/qemu-system-x86_64 and share/. Debian 12's own version 7.2 does not tell a hypervisor when
# its guest sets XCR0: the guest's processes would lose registers to each other. And it starts dynamic programs slower.
# The result is kept in ${MARTLET_CACHE:-~/.cache/martlet}/lab/qemu-<hash of this script>.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/need.sh"

cache=${MARTLET_CACHE:-$HOME/.cache/martlet}/lab
result=$cache/qemu-$(sha256sum <"$here/lab-qemu.sh" | cut -c 1-32)
# Its libraries are those of the installed version.
need qemu-system-x86 qemu-system-common debian-archive-keyring >&2
if [ -e "$result/bin/qemu-system-x86_64" ]; then
    touch "$result"
    echo "$result"
    exit 0
fi

mkdir -p "$cache"
exec 9>"$cache/lock-qemu"
flock 9
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists,archives}/partial "$work/out/bin"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-backports main" \
    >"$work/sources.list"
# Lists and archives of its own: the system's sources stay as they are.
private_apt() {
    apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$work/lists" \
        -o Dir::Cache="$work" -o APT::Sandbox::User=root -o Acquire::Languages=none "$@" >"$work/apt.log" 2>&1 ||
        { echo "lab: apt-get $*:" >&2; tail -n 20 "$work/apt.log" >&2; return 1; }
}
echo "lab: fetching QEMU of bookworm-backports (once)" >&2
private_apt update
(
    cd "$work/archives"
    private_apt download qemu-system-x86/bookworm-backports qemu-system-data/bookworm-backports seabios
    for package in *.deb; do dpkg-deb -x "$package" "$work/root"; done
)
mv "$work/root/usr/bin/qemu-system-x86_64" "$work/out/bin/"
mkdir "$work/out/share"
# What a machine without a screen and without booting from the network reads.
for file in qemu/{pvh,linuxboot_dma,kvmvapic}.bin seabios/{bios-256k,bios}.bin; do
    cp "$work/root/usr/share/$file" "$work/out/share/"
done
"$work/out/bin/qemu-system-x86_64" --version >&2
[ -e "$result" ] || mv -T "$work/out" "$result"
# Of old ones the two that were used last stay.
find "$cache" -mindepth 1 -maxdepth 1 -type d -name 'qemu-*' -printf '%T@ %p\n' |
    sort -rn | tail -n +4 | cut -d ' ' -f 2- | xargs -r -d '\n' rm -rf
echo "$result"
