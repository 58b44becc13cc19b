#!/bin/bash
# containerd-setup-check.sh : tries martlet-containerd-setup with the configurations that nodes have, and each containerd that there is:
# this machine's, and those of Debian trixie and sid where they can be fetched. Prints a line for each.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install -D scripts/containerd-setup.sh "$work/prefix/sbin/setup"
install -D -t "$work/prefix/share/martlet/containerd" configs/containerd/*.toml
config=$work/etc/config.toml
own_path=$PATH failed=0

# The configuration NAME, for the containerd in PATH.
configuration() {
    case $1 in
        none) ;;
        debian) printf 'version = 2\n[plugins."io.containerd.grpc.v1.cri".cni]\n  bin_dir = "/usr/lib/cni"\n' ;;
        runc) printf 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]\n  runtime_type = "io.containerd.runc.v2"\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]\n  SystemdCgroup = true\n' ;;
        default) containerd config default ;;
        imports) containerd config default | sed "s|^imports.*|imports = [\"$work/etc/conf.d/*.toml\"]|" ;;
    esac
}
runtimes() { containerd --config "$config" config dump 2>/dev/null | sed -n 's/.*\.runtimes\.\([a-z]*\)\]$/\1/p' | sort | paste -sd ' '; }
try() {
    rm -rf "$work/etc"
    mkdir "$work/etc"
    configuration "$1" >"$work/before"
    [[ ! -s $work/before ]] || cp "$work/before" "$config"
    "$work/prefix/sbin/setup" add --config "$config" --restart "echo once >>$work/etc/restarts" || return 1
    "$work/prefix/sbin/setup" add --config "$config" --restart "echo twice >>$work/etc/restarts" | grep unchanged
    [[ $(runtimes) == "martlet runc" && $(<"$work/etc/restarts") == once ]] || { echo "it has: $(runtimes)"; return 1; }
    "$work/prefix/sbin/setup" remove --config "$config" --restart true || return 1
    rm "$work/etc/restarts"
    [[ $(cat "$work/etc/"* 2>&1) == "$(cat "$work/before")" || ! -s $work/before && -z $(ls "$work/etc") ]] || { echo "left: $(ls "$work/etc")"; return 1; }
}
for suite in "" trixie sid; do
    PATH=$own_path
    if [[ -n $suite ]]; then
        directory=$(scripts/debian-program.sh "$suite" containerd 2>/dev/null) || { echo "skipped containerd of $suite: it can't be fetched"; continue; }
        PATH=$directory/usr/bin:$PATH
    fi
    version=$(containerd --version | awk '{print $3}')
    for name in none debian runc default imports; do
        if said=$(try "$name" 2>&1); then
            echo "ok      containerd $version, configuration $name"
        else
            failed=1
            echo "FAILED  containerd $version, configuration $name: $said"
        fi
    done
done
exit $failed
