#!/bin/bash
# Builds the guest kernel from Debian's kernel source and the fragments in configs/kernel/, and prints the directory
# that holds the result: vmlinux (stripped ELF, boots by PVH or 64-bit entry), bzImage, config, version.
# The result is kept in ${MARTLET_CACHE:-~/.cache/martlet}/kernel/<hash of all inputs>; a second run only prints it.
# Fails with a list when an option that a fragment names did not survive.
#   --key    print that directory and build nothing
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/need.sh"

package=linux-source-6.1
fragments=$here/../configs/kernel
cache=${MARTLET_CACHE:-$HOME/.cache/martlet}/kernel

say() { echo "kernel: $*" >&2; }

# The version that is installed, else the one that would be.
source_version() {
    local version
    version=$(dpkg-query -W -f '${Version}' $package 2>/dev/null) && [ -n "$version" ] && { echo "$version"; return; }
    version=$(apt-cache policy $package | sed -n 's/^ *Candidate: //p')
    if [ -z "$version" ] || [ "$version" = "(none)" ]; then
        need $package
        version=$(dpkg-query -W -f '${Version}' $package)
    fi
    echo "$version"
}

need gcc binutils
version=$(source_version)
key=$({ sha256sum <"$here/guest-kernel.sh"; cat "$fragments"/*.config | sha256sum; echo "$version"; gcc --version | head -n 1; } |
    sha256sum | cut -c 1-64)
result=$cache/$key
if [ "${1:-}" = --key ] || [ -e "$result/vmlinux" ]; then
    echo "$result"
    exit 0
fi

mkdir -p "$cache"
exec 9>"$cache/lock"
flock -n 9 || { say "waiting for another build"; flock 9; }
[ ! -e "$result/vmlinux" ] || { echo "$result"; exit 0; }

need $package make flex bison bc libelf-dev libssl-dev lz4 zstd xz-utils cpio
rm -rf "$cache"/build.??????    # left by a build that was killed
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
log=$cache/build.log

say "unpacking $package $version"
tar -xf "/usr/src/$package.tar.xz" -C "$work" --strip-components=1
cd "$work"
# The same inputs give the same kernel, whoever builds it and when.
KBUILD_BUILD_TIMESTAMP=$(date -u -d "@$(stat -c %Y Makefile)")
export KBUILD_BUILD_TIMESTAMP KBUILD_BUILD_USER=martlet KBUILD_BUILD_HOST=martlet KBUILD_BUILD_VERSION=1 LC_ALL=C

cat "$fragments"/*.config >wanted
make -s KCONFIG_ALLCONFIG=wanted allnoconfig >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
lost=$(while read -r line; do
    case $line in
    CONFIG_*) grep -qxF "$line" .config || echo "  $line" ;;
    "# CONFIG_"*" is not set") name=${line#\# }; ! grep "^${name%% *}=" .config >/dev/null || echo "  $line" ;;
    esac
done <wanted)
if [ -n "$lost" ]; then
    say "these wanted options did not survive (misspelt, or something they depend on is off):"
    echo "$lost" >&2
    exit 1
fi

say "compiling; about 12 minutes of processor time, log in $log"
make -j"$(nproc)" vmlinux bzImage >"$log" 2>&1 &
make=$!
trap 'kill $make 2>/dev/null || true; wait; rm -rf "$work"' EXIT
while kill -0 $make 2>/dev/null; do
    for _ in $(seq 20); do kill -0 $make 2>/dev/null && sleep 1 || break; done
    say "$(grep -c '^  [A-Z]' "$log" || true) of about 2250 files done"
done
if ! wait $make; then
    say "the build failed; the end of $log:"
    tail -n 30 "$log" >&2
    exit 1
fi

mkdir out
strip --strip-all -o out/vmlinux vmlinux
cp arch/x86/boot/bzImage out/bzImage
cp .config out/config
make -s kernelrelease >out/version
echo "$package $version" >out/source
mv -T out "$result"
say "$(cat "$result/version"): vmlinux $(stat -c %s "$result/vmlinux") bytes, bzImage $(stat -c %s "$result/bzImage") bytes"
echo "$result"
