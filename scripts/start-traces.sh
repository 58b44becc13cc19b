#!/bin/bash
# start-traces.sh DIRECTORY : traces three starts of a container on the built-in VMM: cold, from a template and from the pool, each
# the third of its kind, for scripts/start-picture.py. Where this machine has no /dev/kvm that runs Linux, in the lab:
#   scripts/lab.sh -t 900 -o traces scripts/start-traces.sh traces
#   scripts/start-picture.py "Cold"=traces/cold.json "From a template"=traces/template.json "From the pool"=traces/pool.json
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:?a directory}")
bin=$(realpath "${MARTLET_BIN:-.build/release}")
mkdir -p "$out"
work=$(mktemp -d "${MARTLET_TEST_DIRECTORY:-/tmp}/martlet-traces.XXXXXX")
martlet() { "$bin/martlet" --root "$work/pods" --config "$work/$config.toml" "$@"; }
cleanup() {
    config=on martlet pool drain || true
    rm -rf "$work"
}
trap cleanup EXIT
mkdir -p "$work"/bundle/rootfs/{bin,dev,proc,sys,tmp,etc}
cp "$(command -v busybox)" "$work/bundle/rootfs/bin/"
ln -s busybox "$work/bundle/rootfs/bin/true"
"$bin/martlet" spec --bundle "$work/bundle" --no-terminal -- /bin/true
for config in off on; do
    cat >"$work/$config.toml" <<END
hypervisor = "kvm"
template.mode = "$config"
template.directory = "$work/templates"
agent.start_timeout_s = 300
agent.request_timeout_s = 300
END
done
export MARTLET_GUEST=${MARTLET_GUEST:-$PWD/.build/guest/own}

config=off
for try in 1 2 3; do martlet run --trace "$out/cold.json" --bundle "$work/bundle" "cold$try"; done
config=on
martlet template create
for try in 1 2 3; do martlet run --trace "$out/template.json" --bundle "$work/bundle" "template$try"; done
for try in 1 2 3; do
    martlet pool fill --count 1
    martlet run --trace "$out/pool.json" --bundle "$work/bundle" "pool$try"
done
