#!/bin/bash
# Builds the Go program of Tests/TTRPCTests/Peers with containerd's ttrpc 1.2 and prints where it is. Debian 12's
# ttrpc has no streaming; trixie's packages are unpacked in the cache, and the system's own sources stay as they are.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

source=Tests/TTRPCTests/Peers/peer.go
proto=Tests/TTRPCTests/protos/probe.proto
cache="${MARTLET_CACHE:-$HOME/.cache/martlet}/ttrpc-peer"
stamp="$(cat "$0" "$source" "$proto" | sha256sum | cut -c1-16)"
program="$cache/peer-$stamp"
if [ -x "$program" ]; then
    echo "$program"
    exit
fi
need protobuf-compiler ca-certificates debian-archive-keyring

packages=(
    golang-1.24-go golang-1.24-src golang-github-containerd-ttrpc-dev golang-google-grpc-dev golang-google-protobuf-dev
    golang-github-golang-protobuf-1-5-dev golang-google-genproto-dev golang-golang-x-sys-dev golang-golang-x-net-dev
    golang-golang-x-text-dev golang-github-sirupsen-logrus-dev
)
private_apt() {
    apt-get -qq -o Dir::Etc::SourceList="$cache/apt/sources.list" -o Dir::Etc::SourceParts=- \
        -o Dir::State::Lists="$cache/apt/lists" -o Dir::Cache="$cache/apt" -o APT::Sandbox::User="$(id -un)" \
        -o Acquire::Languages=none "$@" >&2
}

root="$cache/trixie"
if [ ! -d "$root" ]; then
    echo "ttrpc-peer: fetching Go and ttrpc of Debian trixie (once)" >&2
    rm -rf "$cache/apt" "$root.new"
    mkdir -p "$cache/apt/lists/partial" "$cache/apt/archives/partial" "$root.new"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" \
        >"$cache/apt/sources.list"
    private_apt update
    (cd "$cache/apt/archives" && private_apt download "${packages[@]}")
    for package in "$cache"/apt/archives/*.deb; do dpkg -x "$package" "$root.new"; done
    rm -rf "$cache/apt"
    mv "$root.new" "$root"
fi

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/src/peer"
cp "$source" "$work/src/peer/"
protoc -I "$(dirname "$proto")" --descriptor_set_out="$work/src/peer/probe.pb" "$(basename "$proto")"
(
    cd "$work/src/peer"
    env GO111MODULE=off GOROOT="$root/usr/lib/go-1.24" GOPATH="$work:$root/usr/share/gocode" GOTOOLCHAIN=local \
        GOCACHE="$work/cache" GOFLAGS= CGO_ENABLED=0 "$root/usr/lib/go-1.24/bin/go" build -o "$work/peer" . >&2
)
mv "$work/peer" "$program"
echo "$program"
