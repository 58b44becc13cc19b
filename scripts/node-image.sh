#!/bin/bash
# `make image`: node-image.sh [NAME] writes the image that configs/kubernetes/install.yaml puts on nodes, NAME (martlet-node:VERSION),
# as `docker save` has it, to .build/martlet-node.tar: busybox, and Martlet as it is installed below /opt/martlet.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh
need busybox-static binutils python3
version=$(scripts/version.sh)
name=${1:-martlet-node:$version} out=.build/martlet-node.tar
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 0755 "$tree"
scripts/install.sh "$tree" /opt/martlet >/dev/null
strip "$tree"/opt/martlet/bin/* "$tree"/opt/martlet/libexec/martlet/martlet-{device,vmm}
# What is for people who sit at the node.
rm -rf "$tree"/opt/martlet/share/{bash-completion,zsh,fish,man}
install -m 755 configs/kubernetes/node.sh "$tree/martlet-node"
scripts/image.py --tree "$tree" "$name" "$out" /martlet-node
echo "$out: $name, $(du -h "$out" | cut -f 1)"
