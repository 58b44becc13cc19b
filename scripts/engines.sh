#!/bin/bash
# engines.sh [SUITE] : fetches the engines that tests need in versions which this machine does not have, unpacks them without
# installing them, and prints the directory of their programs. Where they can't be had it says why and fails. SUITE is trixie
# (docker 26.1 and its containerd) or bookworm (docker 20.10). runc is the machine's own: that of trixie needs a newer C library.
set -euo pipefail
cd "$(dirname "$0")"
suite=${1:-trixie}
result=${MARTLET_CACHE:-$HOME/.cache/martlet}/engines/$suite
# Each program's name, its package and its path there.
programs=(
    "dockerd docker.io usr/sbin/dockerd"
    "docker-proxy docker.io usr/sbin/docker-proxy"
    "docker-init tini usr/bin/tini-static"
)
case $suite in
    trixie)
        programs+=(
            "docker docker-cli usr/bin/docker"
            "containerd containerd usr/bin/containerd"
            "containerd-shim-runc-v2 containerd usr/bin/containerd-shim-runc-v2"
            "ctr containerd usr/bin/ctr"
        )
        ;;
    bookworm) programs+=("docker docker.io usr/bin/docker") ;;
    *) echo "engines: no engines of $suite are known" >&2 && exit 1 ;;
esac
if ! printf '%s\n' "${programs[@]}" | cmp -s - "$result/done"; then
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    mkdir -p "$result"
    for program in "${programs[@]}"; do
        read -r name package path <<<"$program"
        directory=$(timeout 300 ./debian-program.sh "$suite" "$package" 2>"$log") || {
            echo "engines: $package of $suite can't be fetched: $(grep -v '^$' "$log" | tail -n 1)" >&2
            exit 1
        }
        ln -sfn "$directory/$path" "$result/$name"
    done
    printf '%s\n' "${programs[@]}" >"$result/done"
fi
echo "$result"
