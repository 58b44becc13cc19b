#!/bin/bash
# `make install`: install.sh DESTDIR PREFIX
set -euo pipefail
cd "$(dirname "$0")/.."
to=$1$2
for program in martlet containerd-shim-martlet-v2; do install -Dm755 ".build/release/$program" "$to/bin/$program"; done
for program in martlet-device martlet-vmm; do
    install -Dm755 ".build/release/$program" "$to/libexec/martlet/$program"
done
for file in .build/guest/own/*; do install -Dm644 "$file" "$to/share/martlet/guest/$(basename "$file")"; done
install -Dm644 configs/martlet.toml "$to/share/martlet/martlet.toml"
echo "installed below $to"
