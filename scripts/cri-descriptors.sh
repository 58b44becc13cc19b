#!/bin/bash
# cri-descriptors.sh : makes what Tests/EndToEnd/Programs/cri.py needs to know of Kubernetes' CRI (v1), of the api.proto that Debian has
# in trixie; prints the file's path, in the cache.
set -euo pipefail
cd "$(dirname "$0")"
cache=${MARTLET_CACHE:-$HOME/.cache/martlet}/cri
result=$cache/$(sha256sum cri-descriptors.sh | cut -c 1-16)
if [ ! -e "$result" ]; then
    . ./need.sh
    need protobuf-compiler >&2
    package=$(./debian-program.sh trixie golang-github-kubernetes-cri-api-dev)
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # What is gogoproto's changes only the code that Go gets.
    grep -v gogoproto "$package/usr/share/gocode/src/k8s.io/cri-api/pkg/apis/runtime/v1/api.proto" >"$work/api.proto"
    mkdir -p "$cache"
    protoc -I "$work" --include_imports --descriptor_set_out="$result.$$" api.proto
    mv "$result.$$" "$result"
fi
echo "$result"
