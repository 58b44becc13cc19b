#!/bin/bash
# `make deb`: builds the Debian packages martlet, martlet-guest and martlet-containerd in .build/deb, from debian/ and the tree as it
# is, with Martlet's version, and checks them with Lintian. What is missing is built.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/need.sh
need debhelper dpkg-dev lintian man-db binutils cpio erofs-utils libseccomp-dev lz4 python3 zstd
version=$(scripts/version.sh)
source=$PWD out=.build/deb
# The packages of one commit are the same.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
export SOURCE_DATE_EPOCH
rm -rf "$out"
mkdir -p "$out/martlet"
cp -r debian docs README.md "$out/martlet/"
{
    echo "martlet ($version) unstable; urgency=medium"
    echo
    echo "  * Packages of $(git rev-parse --short HEAD 2>/dev/null || echo 'a tree without git')."
    echo
    echo " -- $(sed -n 's/^Maintainer: //p' debian/control)  $(date -u -R -d "@$SOURCE_DATE_EPOCH")"
} >"$out/martlet/debian/changelog"
# make's own variables are not for the make of the package.
if ! (cd "$out/martlet" && env -u MAKEFLAGS -u MAKELEVEL SOURCE="$source" dpkg-buildpackage -b -us -uc) >"$out/log" 2>&1; then
    tail -n 40 "$out/log" >&2
    exit 1
fi
rm -rf "$out/martlet"
lintian --allow-root --no-cfg --fail-on error,warning --suppress-tags "" "$out"/*.changes
ls -l --block-size=K "$out"/*.deb | awk '{print $9 ": " $5}'
