#!/bin/bash
# `make install`: install.sh DESTDIR PREFIX
set -euo pipefail
cd "$(dirname "$0")/.."
to=$1$2
install -Dm755 .build/release/martlet "$to/bin/martlet"
for program in martlet-device martlet-vmm; do
    install -Dm755 ".build/release/$program" "$to/libexec/martlet/$program"
done
for file in .build/guest/own/*; do install -Dm644 "$file" "$to/share/martlet/guest/$(basename "$file")"; done
install -Dm644 configs/martlet.toml "$to/share/martlet/martlet.toml"
echo "installed below $to"
