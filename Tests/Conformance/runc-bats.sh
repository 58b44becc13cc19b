#!/bin/bash
# runc-bats.sh CHECKOUT RUNTIME [NAME…] : runs runc's own bats tests (tests/integration of the checkout) against a runtime
# and prints pass, fail or skip for each, and the totals. NAME is a file without .bats; none means all.
#
# The checkout is not written to. The tests' helper programs (recvtty and its like) are taken from HELPERS, a directory
# (Debian's runc package has them in /usr/sbin). The images are made here from busybox-static: the tests' own come from
# the network. DEBIAN is an archive (tar.xz) of a Debian root file system for the tests that need one, as debootstrap makes
# it (variant minbase); without it these tests get busybox, and most of them fail for every runtime.
#
# TEST_TIMEOUT: seconds for one test (60). LIST: where the results go, a line "result TAB file TAB test" each
# (runc-bats.tsv). BASELINE: a list of another runtime; only the files with a test that passed there are run.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
[ $# -ge 2 ] || { sed -n 2,3p "$0" >&2; exit 2; }
checkout=$(readlink -f "$1") runtime=$(readlink -f "$2")
shift 2
list=$(readlink -f "${LIST:-runc-bats.tsv}")
helpers=${HELPERS:-/usr/sbin}
need_programs bats jq gawk busybox xz script
work=$(mktemp -d "${TMPDIR:-/tmp}/runc-bats.XXXXXX")
trap 'clear_left; rm -rf --one-file-system "$work"' EXIT
# Containers with users of their own pass through it.
chmod 755 "$work"

mkdir -p "$work/tmp" "$work/bin" "$work/runc/tests/cmd/_bin" "$work/root"
cp -r "$checkout/tests/integration" "$work/runc/tests/integration"
cp "$checkout/VERSION" "$work/runc/"
[ ! -d "$checkout/contrib" ] || cp -r "$checkout/contrib" "$work/runc/"
# An example that a test makes by a script.
[ ! -d "$checkout/tests/cmd/seccompagent" ] || cp -r "$checkout/tests/cmd/seccompagent" "$work/runc/tests/cmd/"
for helper in recvtty sd-helper seccompagent fs-idmap pidfd-kill remap-rootfs; do
    cp "$helpers/$helper" "$work/runc/tests/cmd/_bin/" 2>/dev/null || echo "no $helper in $helpers: its tests fail" >&2
done
# get-images.sh asks go for the architecture only.
printf '#!/bin/sh\necho amd64\n' >"$work/bin/go"
chmod +x "$work/bin/go"
busybox_root "$work/root"
# The tests' own image has neither.
rmdir "$work/root"/{proc,sys}
printf '#!/bin/busybox sh\necho "Hello from a container"\n' >"$work/root/hello"
chmod +x "$work/root/hello"
images=$work/runc/tests/integration/testdata
tar -C "$work/root" -cJf "$images/busybox-amd64.tar.xz" .
cp "${DEBIAN:-$images/busybox-amd64.tar.xz}" "$images/debian-amd64.tar.xz"
tar -C "$work/root" -cf "$images/hello-world-amd64.tar" .

[ $# -gt 0 ] || set -- $(cd "$work/runc/tests/integration" && ls -- *.bats | sed 's/\.bats$//')
export PATH=$work/bin:$PATH RUNC=$runtime TMPDIR=$work/tmp BATS_TEST_TIMEOUT=${TEST_TIMEOUT:-60}
: >"$list"
# An input without an end: at its end `script` would write to the terminal, and the first container that has it would read that.
mkfifo "$work/input"
exec 8<>"$work/input"
for name in "$@"; do
    if [ -n "${BASELINE:-}" ] && ! grep -q "^pass	$name	" "$BASELINE"; then continue; fi
    # Many tests run a container with a terminal: they need a controlling one.
    export TAP_FILE=$work/tap ERROR_FILE=$work/errors BATS_FILE=$work/runc/tests/integration/$name.bats
    script -qec 'exec bats --tap "$BATS_FILE" >"$TAP_FILE" 2>"$ERROR_FILE"' /dev/null <&8 8<&- >/dev/null || true
    # A file that ends early has tests without a result: they are failures.
    awk -v name="$name" -v OFS='\t' '
        /^1\.\./ {expected = substr($0, 4) + 0; next}
        /^(not )?ok / {
            result = /^not/ ? "fail" : /# skip/ ? "skip" : "pass"
            sub(/^(not )?ok [0-9]+ /, ""); seen++; print result, name, $0
        }
        END {for (i = seen + 1; i <= expected; i++) print "fail", name, "no result for test " i}' "$work/tap" | tee -a "$list"
    [ -z "${LOGS:-}" ] || { mkdir -p "$LOGS"; cat "$work/tap" "$work/errors" >"$LOGS/$name.tap"; }
    clear_left
done
totals
