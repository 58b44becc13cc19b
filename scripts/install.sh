#!/bin/bash
# `make install`: install.sh DESTDIR PREFIX [BUILD], with BUILD the directory of the executables (.build/release).
set -euo pipefail
cd "$(dirname "$0")/.."
to=$1$2
build=${3:-.build/release}
for program in martlet containerd-shim-martlet-v2; do install -Dm755 "$build/$program" "$to/bin/$program"; done
for program in martlet-device martlet-vmm; do
    install -Dm755 "$build/$program" "$to/libexec/martlet/$program"
done
# What works in the containers of `martlet bench isolation`.
install -Dm755 guest-agent/.build/release/martlet-bench-guest "$to/libexec/martlet/martlet-bench-guest"
for file in .build/guest/own/*; do install -Dm644 "$file" "$to/share/martlet/guest/$(basename "$file")"; done
install -Dm644 configs/martlet.toml "$to/share/martlet/martlet.toml"
# What makes it a runtime of the engines, with the paths of this installation.
install -Dm755 scripts/containerd-setup.sh "$to/sbin/martlet-containerd-setup"
for file in containerd/config-1.toml containerd/config-2.toml podman/containers.conf crio/10-martlet.conf docker/daemon.json; do
    mkdir -p "$to/share/martlet/${file%/*}"
    sed "s|/usr/local/bin/|$2/bin/|" "configs/$file" >"$to/share/martlet/$file"
done
# Completions and man pages come from the parser of the command line itself.
for completion in bash:bash-completion/completions/martlet zsh:zsh/site-functions/_martlet \
    fish:fish/vendor_completions.d/martlet.fish; do
    file=$to/share/${completion#*:}
    mkdir -p "$(dirname "$file")"
    "$build/martlet" --generate-completion-script "${completion%%:*}" >"$file"
done
"$build/martlet" --experimental-dump-help | scripts/manual.py "$to/share/man/man1"
echo "installed below $to"
