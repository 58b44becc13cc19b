#!/bin/bash
# Installs the Debian packages that a target needs: `setup.sh run` for building and running, `setup.sh test` for the
# tests too. Says how to get Swift where it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

if ! command -v swift >/dev/null; then
    cat >&2 <<'MESSAGE'
Swift is missing. Martlet needs Swift 6.2 or later on Debian 12:
  get it from https://www.swift.org/install/linux/ (the "Debian 12" toolchain), unpack it, and put its usr/bin in PATH.
MESSAGE
    exit 1
fi
# qemu-system-common has virtiofsd, which `martlet bench files` compares with.
need qemu-system-x86 qemu-system-common cpio zstd busybox-static libseccomp-dev
if [[ ,${TRAITS:-}, == *,Libvirt,* ]]; then
    need libvirt-dev libvirt-daemon libvirt-daemon-driver-qemu libvirt-daemon-system libvirt-clients
fi
if [[ ${1:-run} == test ]]; then
    need iproute2 e2fsprogs containerd runc mmdebstrap strace gcc libc6-dev zlib1g-dev acpica-tools iperf3 containernetworking-plugins iptables curl \
        python3 python3-grpcio python3-protobuf libarchive-tools
    # The tests with podman are skipped where it is missing.
    need podman golang-github-containers-common uidmap slirp4netns || echo "podman can't be installed" >&2
    # For images in place of bundles; their tests are skipped where they are missing.
    need skopeo umoci || echo "skopeo and umoci can't be installed" >&2
fi
