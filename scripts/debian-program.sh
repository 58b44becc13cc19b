#!/bin/bash
# debian-program.sh SUITE PACKAGE… : fetches packages of some Debian release (trixie, sid) and unpacks them into one directory
# without installing them; prints the directory. For tests with programs that this machine does not have.
set -euo pipefail
suite=$1 packages=("${@:2}")
name=$suite-${packages[0]}
[ ${#packages[@]} = 1 ] || name+=-$(echo "${packages[*]}" | sha256sum | cut -c 1-8)
cache=${MARTLET_CACHE:-$HOME/.cache/martlet}/debian/$name
if [ ! -e "$cache/done" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/lists/partial" "$work/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" >"$work/sources"
    options=(-q -o Dir::Etc::SourceList="$work/sources" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$work/lists"
        -o Dir::Cache="$work" -o Dir::Cache::Archives="$work/archives" -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update >&2
    (cd "$work" && apt-get "${options[@]}" download "${packages[@]}" >&2)
    rm -rf "$cache"
    mkdir -p "$cache"
    for file in "$work"/*.deb; do dpkg -x "$file" "$cache"; done
    touch "$cache/done"
fi
echo "$cache"
