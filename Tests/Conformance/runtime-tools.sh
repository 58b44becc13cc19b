#!/bin/bash
# runtime-tools.sh CHECKOUT RUNTIME [NAME…] : runs the validation programs of opencontainers/runtime-tools against a runtime
# and prints pass, fail or skip for each, and the totals. NAME is a directory below validation; none means all.
#
# The checkout holds its programs already (runtimetest and validation/NAME/NAME.t) and is not written to. A program passes
# when it ends with 0 and none of its TAP lines is "not ok"; it is skipped when it says so without any result.
#
# TEST_TIMEOUT: seconds for one program (120). LIST: where the results go, a line "result TAB validation TAB name" each
# (runtime-tools.tsv). BASELINE: a list of another runtime; only what passed there is run. LOGS: a directory for what the
# programs print.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
[ $# -ge 2 ] || { sed -n 2,3p "$0" >&2; exit 2; }
checkout=$(readlink -f "$1") runtime=$(readlink -f "$2")
shift 2
list=$(readlink -f "${LIST:-runtime-tools.tsv}")
[ -x "$checkout/runtimetest" ] || { echo "no $checkout/runtimetest: the checkout's programs are missing" >&2; exit 2; }
work=$(mktemp -d "${TMPDIR:-/tmp}/runtime-tools.XXXXXX")
trap 'clear_left; rm -rf --one-file-system "$work"' EXIT
mkdir "$work/tmp" "$work/state"
# Containers with users of their own pass through it.
chmod 755 "$work"
# The programs look for these in their working directory.
cp "$checkout/runtimetest" "$checkout"/rootfs-*.tar.gz "$work/"
# They name no state directory: the runtime gets one of this run's own.
printf '#!/bin/sh\nexec "%s" --root "%s/state" "$@"\n' "$runtime" "$work" >"$work/runtime"
chmod +x "$work/runtime"
[ $# -gt 0 ] || set -- $(cd "$checkout/validation" && ls -d -- */ | sed 's,/,,' | grep -vx util)
export RUNTIME=$work/runtime TMPDIR=$work/tmp
: >"$list"
for name in "$@"; do
    if [ -n "${BASELINE:-}" ] && ! grep -q "^pass	validation	$name$" "$BASELINE"; then continue; fi
    result=pass
    (cd "$work" && timeout -k 5 "${TEST_TIMEOUT:-120}" "$checkout/validation/$name/$name.t") \
        >"$work/tap" 2>"$work/errors" </dev/null || result=fail
    if grep -q '^ *not ok' "$work/tap"; then
        result=fail
    elif [ $result = pass ] && ! grep -q '^ *ok' "$work/tap"; then
        result=$(grep -qi 'skip' "$work/tap" && echo skip || echo fail)
    fi
    printf '%s\tvalidation\t%s\n' "$result" "$name" | tee -a "$list"
    [ -z "${LOGS:-}" ] || { mkdir -p "$LOGS"; cat "$work/tap" "$work/errors" >"$LOGS/$name"; }
    for container in "$work"/state/*/; do
        [ ! -d "$container" ] || timeout 20 "$work/runtime" delete -f "$(basename "$container")" >/dev/null 2>&1 || true
    done
done
clear_left
totals
