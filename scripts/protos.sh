#!/bin/bash
# Regenerates the Swift code of every .proto file. With --check: changes nothing and fails when it is out of date.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh

# The .proto files, where their code goes, and who may see it.
sets=(
    "Sources/TTRPC/protos Sources/TTRPC/Generated internal"
    "Sources/TaskAPI/protos Sources/TaskAPI/Generated public"
    "Sources/AgentAPI/protos Sources/AgentAPI/Generated public"
    "Sources/CRIAPI/protos Sources/CRIAPI/Generated public"
    "Tests/TTRPCTests/protos Tests/TTRPCTests/Generated internal"
)

# protoc-gen-swift from the very swift-protobuf that the package resolves to; built once for each version.
generator() {
    local scratch="${MARTLET_SCRATCH:-.build}" checkout version built
    checkout="$scratch/checkouts/swift-protobuf"
    [ -d "$checkout" ] || swift package --scratch-path "$scratch" resolve >&2
    version="$(git -C "$checkout" describe --tags --always)"
    built="${MARTLET_CACHE:-$HOME/.cache/martlet}/protoc-gen-swift-$version"
    if [ ! -x "$built" ]; then
        echo "protos: building protoc-gen-swift $version (once)" >&2
        local work
        work="$(mktemp -d)"
        cp -r "$checkout" "$work/source"
        chmod -R u+w "$work/source"
        swift build --package-path "$work/source" --scratch-path "$work/build" --product protoc-gen-swift \
            >"$work/log" 2>&1 || {
            tail -20 "$work/log" >&2
            return 1
        }
        mkdir -p "$(dirname "$built")"
        cp "$work/build/debug/protoc-gen-swift" "$built.new"
        mv "$built.new" "$built"
        rm -rf "$work"
    fi
    echo "$built"
}

# Another generator may write other code: the package must ask for exactly the version whose generator this is.
check_version() {
    local pinned built
    pinned=$(sed -n 's|.*apple/swift-protobuf", exact: "\([^"]*\)".*|\1|p' Package.swift)
    built=${plugin##*protoc-gen-swift-}
    [ "$pinned" = "$built" ] || {
        echo "protos: the generator is swift-protobuf $built, but Package.swift asks for ${pinned:-no exact version}" >&2
        exit 1
    }
}

need protobuf-compiler libprotobuf-dev python3-protobuf
plugin="$(generator)"
check_version
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
stale=0
for entry in "${sets[@]}"; do
    read -r protos target access <<<"$entry"
    fresh="$scratch/$target"
    mkdir -p "$fresh"
    protoc --plugin=protoc-gen-swift="$plugin" --plugin=protoc-gen-ttrpc-swift=scripts/protoc-gen-ttrpc-swift \
        -I "$protos" \
        --swift_opt="Visibility=$access,UseAccessLevelOnImports=true" --swift_out="$fresh" \
        --ttrpc-swift_opt="$access" --ttrpc-swift_out="$fresh" \
        "$protos"/*.proto
    # The generator asks for all of Foundation, which would make a static executable four times as large.
    sed -i 's/import Foundation$/import FoundationEssentials/' "$fresh"/*.pb.swift
    if [ "${1:-}" = --check ]; then
        diff -ru "$target" "$fresh" || stale=1
    elif ! diff -rq "$target" "$fresh" >/dev/null 2>&1; then
        rm -rf "$target"
        cp -r "$fresh" "$target"
        echo "protos: wrote $target"
    fi
done
if [ "$stale" = 1 ]; then
    echo "protos: generated code is out of date; run make protos" >&2
    exit 1
fi
