#!/bin/bash
# Builds everything and runs the tests: `test.sh unit` (no VM), `test.sh ci` (what `make test` runs), `test.sh all`
# (the soaks and full matrices too). Each step says what it does and, at its end, how long it took.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-ci}
began=$SECONDS

step() {
    local title=$1 start=$SECONDS
    shift
    echo "== $title"
    "$@"
    echo "== $title: $((SECONDS - start)) s"
}

# swift test prints a line for every suite and case: keep it in a file, show the end of it, and all of it on failure.
swift_test() {
    local log
    log=$(mktemp /tmp/martlet-test.XXXXXX)
    if swift test --skip-build "$@" >"$log" 2>&1; then
        grep -E -i 'skip' "$log" | head -n 40 || true
        tail -n 4 "$log"
    else
        tail -n 300 "$log"
        return 1
    fi
    rm -f "$log"
}

step "generated code is up to date" scripts/protos.sh --check
step "unit tests: build" swift build --build-tests
if [[ $mode == all ]]; then
    MARTLET_TTRPC_PEER=$(scripts/ttrpc-peer.sh)
    export MARTLET_TTRPC_PEER
fi
step "unit tests" swift_test --no-parallel --skip EndToEnd
[[ $mode == unit ]] && exit 0

step "agent tests" bash -c 'cd guest-agent && swift test 2>&1 | tail -n 4; exit "${PIPESTATUS[0]}"'
step "executables" make --no-print-directory build
step "guest with the own kernel" make --no-print-directory guest
step "guest with the faulty agent" make --no-print-directory guest-faulty
step "guest with the stock kernel" make --no-print-directory guest-stock
if [[ $mode == all ]]; then export MARTLET_TEST_ALL=1; fi
step "end to end" swift_test --no-parallel --filter EndToEnd
if [[ $mode == all ]]; then
    # Everything again over the distribution's kernel; it has no /proc/config.gz, which KernelTests reads.
    export MARTLET_GUEST=$PWD/.build/guest/stock MARTLET_TEST_PATIENCE=2
    step "end to end, stock kernel" swift_test --no-parallel --filter EndToEnd --skip KernelTests
fi
echo "== all of it: $((SECONDS - began)) s"
