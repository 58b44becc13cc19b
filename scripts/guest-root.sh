#!/bin/bash
# guest-root.sh AGENT OUT: writes the guest's root image: a read-only EROFS file system with the static program AGENT as /init and
# the directories that it mounts file systems on. It is not compressed and each file's data is in blocks of its own, so that the
# guest can use the pages where they are (DAX). The same inputs give the same bytes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/need.sh"

[ $# = 2 ] || { echo "usage: guest-root.sh AGENT OUT" >&2; exit 2; }
agent=$1 out=$2
need erofs-utils
tree=$(mktemp -d)
trap 'rm -rf "$tree" "$out.new"' EXIT
chmod 0755 "$tree"
for dir in dev mnt proc run sys tmp; do install -d -m 0755 "$tree/$dir"; done
install -m 0755 "$agent" "$tree/init"
rm -f "$out.new"
log=$(mkfs.erofs -E noinline_data -T 0 -U 00000000-0000-0000-0000-000000000000 --all-root "$out.new" "$tree" 2>&1) ||
    { echo "$log" >&2; exit 1; }
# Linux maps persistent memory in units of 2 MiB.
truncate -s %2M "$out.new"
mv "$out.new" "$out"
