#!/bin/bash
# debian-program.sh SUITE PACKAGE : fetches a package of another Debian release (trixie, sid) and unpacks it without
# installing it; prints the directory. For tests with versions of engines that this Debian does not have.
set -euo pipefail
suite=$1 package=$2
cache=${MARTLET_CACHE:-$HOME/.cache/martlet}/debian/$suite-$package
if [ ! -e "$cache/done" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/lists/partial" "$work/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main" >"$work/sources"
    options=(-q -o Dir::Etc::SourceList="$work/sources" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$work/lists"
        -o Dir::Cache="$work" -o Dir::Cache::Archives="$work/archives" -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update >&2
    (cd "$work" && apt-get "${options[@]}" download "$package" >&2)
    rm -rf "$cache"
    mkdir -p "$cache"
    dpkg -x "$work"/*.deb "$cache"
    touch "$cache/done"
fi
echo "$cache"
