#!/bin/bash
# podman5.sh : fetches podman 5.4 of Debian trixie with its conmon and its netavark, for tests, and prints the directory of the
# programs. They need a newer C library than this machine has: it is unpacked beside them, and they are made to use it.
set -euo pipefail
cd "$(dirname "$0")"
result=${MARTLET_CACHE:-$HOME/.cache/martlet}/engines/podman5
packages=(
    podman conmon netavark aardvark-dns libc6 libgcc-s1 libsubid5 libsqlite3-0 libgpgme11t64 libassuan9 libgpg-error0 libseccomp2
    libglib2.0-0t64 libsystemd0 libpcre2-8-0 libcap2 libselinux1 libaudit1
)
if [ ! -e "$result/done" ]; then
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    fetch() {
        timeout 300 ./debian-program.sh "$@" 2>"$log" || {
            echo "podman5: $2 of $1 can't be fetched: $(grep -v '^$' "$log" | tail -n 1)" >&2
            exit 1
        }
    }
    directory=$(fetch trixie "${packages[@]}")
    patchelf=$(fetch bookworm patchelf)/usr/bin/patchelf
    libraries=$directory/usr/lib/x86_64-linux-gnu
    mkdir -p "$result"
    for program in usr/bin/podman usr/bin/conmon usr/lib/podman/netavark usr/lib/podman/aardvark-dns; do
        name=${program##*/}
        cp "$directory/$program" "$result/$name.new"
        "$patchelf" --force-rpath --set-rpath "$libraries" --set-interpreter "$libraries/ld-linux-x86-64.so.2" "$result/$name.new"
        mv "$result/$name.new" "$result/$name"
    done
    touch "$result/done"
fi
echo "$result"
