#!/bin/bash
# `make run`: a busybox container in a virtual machine, on whatever this machine has.
set -euo pipefail
cd "$(dirname "$0")/.."

# The own kernel takes minutes to build: where it is not there yet the distribution's kernel does for a first run.
if [[ -e $(scripts/guest-kernel.sh --key)/vmlinux ]]; then
    make --no-print-directory guest
    guest=own
else
    echo "== the own guest kernel is not built yet (make guest, about 8 minutes): taking the distribution's kernel"
    make --no-print-directory guest-stock
    guest=stock
fi

work=$(mktemp -d /tmp/martlet-demo.XXXXXX)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/rootfs/{bin,dev,proc,sys,tmp,etc}
cp /bin/busybox "$work/rootfs/bin/"
ln -s busybox "$work/rootfs/bin/sh"
.build/release/martlet spec --bundle "$work" --no-terminal -- /bin/sh -c \
    'echo "hello from a container in a virtual machine: Linux $(busybox uname -r), process $$"'
echo "== martlet run (the host runs Linux $(uname -r))"
MARTLET_GUEST=.build/guest/$guest .build/release/martlet run --bundle "$work" "demo-$$"
