#!/bin/bash
# Builds everything and runs the tests: `test.sh unit` (no VM), `test.sh ci` (what `make test` runs), `test.sh all` (the soaks, the
# built-in VMM in the lab, and a part of each other kernel, driver and lab; scripts/test-all.sh), `test.sh matrix` (each
# of these whole, which takes hours). Each step says what it does and, at its end, how long it took. What is built must succeed;
# a step of tests that fails does not keep the others from running, and the end says what passed, failed and was skipped.
# PART=N/M: only every Mth step of tests, from the Nth on. RESUME=1: not those that have passed with the same sources.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-ci}
[[ $mode =~ ^(unit|ci|all|matrix)$ ]] || {
    echo "$mode: not unit, ci, all or matrix" >&2
    exit 2
}
began=$SECONDS
part=${PART:-1/1}
[[ $part =~ ^([1-9][0-9]*)/([1-9][0-9]*)$ ]] && ((BASH_REMATCH[1] <= BASH_REMATCH[2])) || {
    echo "PART=$part: not N/M with N from 1 to M" >&2
    exit 2
}
part_number=${part%/*} part_count=${part#*/}
step_number=0
# Steps that have passed, by the sources: the commit, where nothing has changed since.
sources=$(git rev-parse HEAD 2>/dev/null || echo none)$([[ -z $(git status --porcelain 2>/dev/null) ]] || echo "-changed-$$")
done_directory=.build/tests-passed/$sources
# Logs of tests that failed; and in results/ a line for each step in passed, failed or skipped, and in `again` for each test
# that passed when it was tried again.
failures=$(mktemp -d /tmp/martlet-failures.XXXXXX)
results=$failures/results
mkdir "$results"

step() {
    local title=$1 start=$SECONDS
    shift
    echo "== $title"
    "$@"
    echo "== $title: $((SECONDS - start)) s"
}

# A step of tests.
tests() {
    local title=$1 start=$SECONDS mark
    mark=$done_directory/$mode-${title//[^A-Za-z0-9]/_}
    shift
    step_number=$((step_number + 1))
    if (((step_number - 1) % part_count != part_number - 1)); then return; fi
    if [[ ${RESUME:-} == 1 && -e $mark ]]; then
        skip "$title" "it has passed"
        return
    fi
    echo "== $title"
    # In a subshell of its own a failing command ends the step, which it would not in a condition.
    set +e
    (
        if [[ -n $lane_output ]]; then exec &>"$lane_output"; fi
        set -e
        "$@"
    )
    local code=$?
    set -e
    if [[ -n $lane_output ]]; then cat "$lane_output"; fi
    echo "== $title: $((SECONDS - start)) s"
    if [[ $code == 0 ]]; then
        echo "$title" >>"$results/passed"
        mkdir -p "$done_directory"
        touch "$mark"
    else
        echo "$title" >>"$results/failed"
        echo "== $title: FAILED"
    fi
}

# skip TITLE REASON: says that a step does not run.
skip() { echo "$1 ($2)" >>"$results/skipped"; }

# lane NAME FUNCTION CPU: runs the steps of a function beside other lanes, in the background, on a processor of its own. What a step
# prints comes at its end.
lane_output="" lanes=()
lane() {
    # What runs in the background has no part in an interrupt from the terminal.
    trap 'trap - INT; kill 0' INT
    mkdir "$failures/$1"
    (
        failures=$failures/$1
        lane_output=$failures/output
        taskset -pc $(($3 % $(nproc))) "$BASHPID" >/dev/null
        "$2"
    ) &
    lanes+=("$!:$1")
}

# Waits for all lanes. One that broke down between its steps counts as a step that failed.
wait_for_lanes() {
    local lane
    for lane in "${lanes[@]}"; do
        wait "${lane%%:*}" || echo "lane ${lane#*:}: it broke down" >>"$results/failed"
    done
}

# The lines of a file of results, with commas between.
result() { paste -sd '|' "$results/$1" | sed 's/|/, /g'; }

# Says how the steps of tests ended.
finish() {
    local kind code=0
    for kind in passed again skipped failed; do
        [[ -s $results/$kind ]] || continue
        sort -u -o "$results/$kind" "$results/$kind"
        case $kind in
        again) echo "== of them at the second try: $(result again)" ;;
        *) echo "== $kind ($(wc -l <"$results/$kind")): $(result "$kind")" ;;
        esac
        if [[ $kind == failed ]]; then code=1; fi
    done
    rm -rf "$failures"
    echo "== all of it: $((SECONDS - began)) s"
    return "$code"
}

# Runs a test command that prints a line for every suite and case: keeps it in a file, shows the end of it, and on failure
# what failed; the file is failed_log then.
failed_log=""
quietly() {
    local log
    log=$(mktemp "$failures/log.XXXXXX")
    if "$@" >"$log" 2>&1; then
        grep -E -i 'skip' "$log" | head -n 40 || true
        slowest "$log"
        tail -n 4 "$log"
        rm -f "$log"
    else
        tail -n 300 "$log"
        grep -E '✘|recorded an issue' "$log" | head -n 40 || true
        failed_log=$log
        return 1
    fi
}

# The tests that took longest, where any took ten seconds: seconds and name.
slowest() {
    sed -n 's/^✔ Test \([A-Za-z0-9_]*\)(.* after \([0-9]*\)\.[0-9]* seconds.*/\2 \1/p' "$1" | awk '$1 >= 10' | sort -rn |
        head -n 12 | awk '{ line = line sep $1 " s " $2; sep = ", " } END { if (line) print "== slowest: " line }'
}

# The names of the tests that failed in logs, as a regular expression; empty where one of the logs does not have its end.
failed_names() {
    local log
    for log in "$@"; do grep -q '^✘ Test run with' "$log" || return 0; done
    sed -n 's/^✘ Test \([A-Za-z0-9_]*\)(.* failed after.*/\1/p' "$@" | sort -u | paste -sd '|'
}

# The tests, without SwiftPM, which runs one process at a time.
bundle=(.build/debug/martletPackageTests.xctest --testing-library swift-testing --no-parallel)

run_bundle() { NO_COLOR=1 quietly "${bundle[@]}" "$@"; }

# What takes long to make and is in the cache then.
prepare() { run_bundle --filter PreparationTests; }

# The end-to-end tests named by a regular expression.
end_to_end_of() { run_bundle --filter "$1" --skip PreparationTests; }

# Runs the end-to-end tests in three processes at once, two beside another lane: much of the time each waits.
in_parts() {
    local part parts pids=() failed=0 cri='[./]CRI[A-Za-z]*Tests/' others='[./](Docker|Podman|BenchPod)[A-Za-z]*Tests/'
    parts=("--filter $cri" "--filter $others")
    if [[ -n $lane_output ]]; then parts=("--filter $cri --filter $others"); fi
    parts+=("--filter EndToEnd --skip $cri --skip $others --skip PreparationTests")
    prepare
    for part in "${parts[@]}"; do
        # shellcheck disable=SC2086
        run_bundle $part "$@" &
        pids+=($!)
    done
    for part in "${pids[@]}"; do wait "$part" || failed=1; done
    if [[ $failed == 0 ]]; then return 0; fi
    # A busy machine: what failed is tried once more, with nothing beside it, and the end names it.
    local names
    names=$(failed_names "$failures"/log.*)
    [[ -n $names ]] || return 1
    rm -f "$failures"/log.*
    echo "== tried again: $names"
    run_bundle --filter "[./]($names)\\(" "$@" || return 1
    tr '|' '\n' <<<"$names" >>"$results/again"
}

# Runs end-to-end tests inside the lab, over the driver lab_driver: seconds, and the names of suites or tests, as a regular
# expression, then those to leave out. Now and then the lab's emulator breaks a guest (docs/lab.md): what failed is tried
# again, twice at most and with one processor, where it does not, and that is said.
lab_test() {
    # The lab sees the cache.
    prepare
    local try names retried="" filter=$2 skip=${3:-} options=("${lab_options[@]}")
    for try in first second third; do
        if MARTLET_TEST_DRIVER=$lab_driver MARTLET_TEST_PATIENCE=${lab_patience:-3} MARTLET_TEST_DIRECTORY=/lab \
            quietly scripts/lab.sh -t "$1" "${options[@]}" "${bundle[@]}" --filter "$filter" ${skip:+--skip "$skip"}
        then
            tr '|' '\n' <<<"$retried" | sed '/^$/d' >>"$results/again"
            return 0
        fi
        echo "== the $try try in the lab failed"
        options=("${lab_options[@]}" -c 1)
        # A lab that broke down does not say what failed; all is tried again.
        names=$(failed_names "$failed_log")
        if [[ -n $names ]]; then
            filter="[./]($names)\\("
            retried=$names
        fi
        rm -f "$failed_log"
    done
    return 1
}
lab_options=() lab_driver=kvm

step "modules" scripts/modules-check.py
step "format" make --no-print-directory lint
step "generated code is up to date" scripts/protos.sh --check
step "unit tests: build" swift build --build-tests
if [[ $mode == all || $mode == matrix ]]; then
    MARTLET_TTRPC_PEER=$(scripts/ttrpc-peer.sh)
    export MARTLET_TTRPC_PEER
fi
tests "unit tests" run_bundle --skip EndToEnd
if [[ $mode == unit ]]; then
    finish
    exit
fi

agent_tests() (cd guest-agent && quietly swift test --no-parallel)
tests "agent tests" agent_tests
step "executables" make --no-print-directory build
step "guest with the own kernel" make --no-print-directory guest
step "guest with the faulty agent" make --no-print-directory guest-faulty
step "guest with the stock kernel" make --no-print-directory guest-stock
if [[ $mode == ci ]]; then
    tests "end to end, QEMU" in_parts
    # One of each kind; the whole of it takes a quarter of an hour and more.
    some='VCPUTests|aContainerRunsToItsEnd|theGuestHasWhatTheNamespaceHas|aReadOnlyDisk|anImageIsTheRoot|aKilledHypervisor'
    some+='|CRITests/aPodRuns|aConfigMapIsFollowed|tasksAreServed|aContainerLivesByItsCommands|itIsMappedAndNotCopied'
    some+='|podsFromOneTemplateAreNotAlike|aRunningContainerGoesOnFromACheckpoint|aForkGoesOnApart'
    tests "end to end, the built-in VMM in the lab: some" lab_test 600 "$some"
    finish
    exit
fi

. scripts/test-all.sh
"$mode"
finish
