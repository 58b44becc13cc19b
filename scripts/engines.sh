#!/bin/bash
# engines.sh : fetches the engines that tests need in versions which this Debian does not have (dockerd, docker and containerd
# of trixie), unpacks them without installing them, and prints the directory of their programs. Where they can't be had it
# says why and fails. runc is the machine's own: that of trixie needs a newer C library.
set -euo pipefail
cd "$(dirname "$0")"
result=${MARTLET_CACHE:-$HOME/.cache/martlet}/engines/trixie
programs=(
    docker.io:usr/sbin/dockerd docker.io:usr/sbin/docker-proxy docker.io:usr/bin/docker-init docker-cli:usr/bin/docker
    containerd:usr/bin/containerd containerd:usr/bin/containerd-shim-runc-v2 containerd:usr/bin/ctr
)
if [ ! -e "$result/done" ]; then
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    mkdir -p "$result"
    for program in "${programs[@]}"; do
        directory=$(timeout 300 ./debian-program.sh trixie "${program%%:*}" 2>"$log") || {
            echo "engines: ${program%%:*} of trixie can't be fetched: $(grep -v '^$' "$log" | tail -n 1)" >&2
            exit 1
        }
        ln -sfn "$directory/${program#*:}" "$result/${program##*/}"
    done
    touch "$result/done"
fi
echo "$result"
