#!/bin/bash
# Builds everything and runs the tests: `test.sh unit` (no VM), `test.sh ci` (what `make test` runs), `test.sh all`
# (the soaks and full matrices too). Each step says what it does and, at its end, how long it took. What is built must succeed; a
# step of tests that fails does not keep the others from running, and the end says what passed, failed and was skipped.
# PART=N/M: only every Mth step of tests, from the Nth on. RESUME=1: not those that have passed with the same sources.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=${1:-ci}
began=$SECONDS
part=${PART:-1/1}
[[ $part =~ ^([1-9][0-9]*)/([1-9][0-9]*)$ ]] && ((BASH_REMATCH[1] <= BASH_REMATCH[2])) || {
    echo "PART=$part: not N/M with N from 1 to M" >&2
    exit 2
}
part_number=${part%/*} part_count=${part#*/}
step_number=0 passed=() failed=() skipped=()
# Steps that have passed, by the sources: the commit, where nothing has changed since.
sources=$(git rev-parse HEAD 2>/dev/null || echo none)$([[ -z $(git status --porcelain 2>/dev/null) ]] || echo "-changed-$$")
done_directory=.build/tests-passed/$sources
# Logs of tests that failed, and the names of those that passed when they were tried again.
failures=$(mktemp -d /tmp/martlet-failures.XXXXXX)

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
        skipped+=("$title (it has passed)")
        return
    fi
    echo "== $title"
    # In a subshell of its own a failing command ends the step, which it would not in a condition.
    set +e
    (
        set -e
        "$@"
    )
    local code=$?
    set -e
    echo "== $title: $((SECONDS - start)) s"
    if [[ $code == 0 ]]; then
        passed+=("$title")
        mkdir -p "$done_directory"
        touch "$mark"
    else
        failed+=("$title")
        echo "== $title: FAILED"
    fi
}

# Says how the steps of tests ended.
finish() {
    local again
    again=$(sort -u "$failures/again" 2>/dev/null | paste -sd ' ' || true)
    rm -rf "$failures"
    echo "== passed (${#passed[@]}): $(IFS=,; echo "${passed[*]}")"
    if [[ -n $again ]]; then echo "== of them at the second try: $again"; fi
    if [[ ${#skipped[@]} -gt 0 ]]; then echo "== skipped (${#skipped[@]}): $(IFS=,; echo "${skipped[*]}")"; fi
    if [[ ${#failed[@]} -gt 0 ]]; then echo "== failed (${#failed[@]}): $(IFS=,; echo "${failed[*]}")"; fi
    echo "== all of it: $((SECONDS - began)) s"
    [[ ${#failed[@]} == 0 ]]
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

swift_test() { quietly swift test --skip-build --no-parallel "$@"; }

# The end-to-end tests, without SwiftPM.
end_to_end=(.build/debug/martletPackageTests.xctest --testing-library swift-testing --no-parallel)

# Runs the end-to-end tests in two processes at once: most of the time one waits for its guest's only vCPU. SwiftPM runs one
# process of tests at a time, so the bundle is run itself.
in_halves() {
    local half pids=() failed=0
    # What takes long to make and is in the cache then, for both.
    swift_test --filter PreparationTests
    for half in "--filter [./](CRI|Docker|Podman|BenchPod)[A-Za-z]*Tests/" \
        "--filter EndToEnd --skip [./](CRI|Docker|Podman|BenchPod)[A-Za-z]*Tests/ --skip PreparationTests"; do
        # shellcheck disable=SC2086
        NO_COLOR=1 quietly "${end_to_end[@]}" $half "$@" &
        pids+=($!)
    done
    for half in "${pids[@]}"; do wait "$half" || failed=1; done
    if [[ $failed == 0 ]]; then return 0; fi
    # A busy machine: what failed is tried once more, with nothing beside it, and the end names it.
    local names
    names=$(failed_names "$failures"/log.*)
    [[ -n $names ]] || return 1
    rm -f "$failures"/log.*
    echo "== tried again: $names"
    NO_COLOR=1 quietly "${end_to_end[@]}" \
        --filter "[./]($names)\\(" "$@" || return 1
    tr '|' '\n' <<<"$names" >>"$failures/again"
}

# Runs end-to-end tests inside the lab, over the driver lab_driver: seconds, and the names of suites or tests, as a regular
# expression, then those to leave out. Now and then the lab's emulator breaks a guest (docs/lab.md): what failed is tried
# again, twice at most and with one processor, where it does not, and that is said.
lab_test() {
    # What takes long to make is made here; the lab sees the cache.
    swift_test --filter PreparationTests
    local try names retried="" filter=$2 skip=${3:-} options=("${lab_options[@]}")
    for try in first second third; do
        if MARTLET_TEST_DRIVER=$lab_driver MARTLET_TEST_PATIENCE=${lab_patience:-3} MARTLET_TEST_DIRECTORY=/lab \
            quietly scripts/lab.sh -t "$1" "${options[@]}" "${end_to_end[@]}" --filter "$filter" ${skip:+--skip "$skip"}
        then
            tr '|' '\n' <<<"$retried" | sed '/^$/d' >>"$failures/again"
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

# bochs_lab SECONDS [OPTION…] COMMAND… : runs a command in the Bochs lab, with what the tests want of this tree.
bochs_lab() {
    local limit=$1
    shift
    scripts/lab.sh --engine bochs -t "$limit" --add scripts/lab/containers.sh "$@"
}

# What is run of Bochs's other processor models: one start each. docs/lab.md says what their faults prevent.
other_models() {
    local model
    for model in core2_penryn_t9600 corei7_sandy_bridge_2600k ryzen; do
        echo "== $model"
        bochs_lab 900 --model "$model" scripts/lab/containers.sh starts 1
    done
}

# The end-to-end tests named by a regular expression, in the Bochs lab.
bochs_test() {
    MARTLET_TEST_DRIVER=kvm MARTLET_TEST_PATIENCE=10 MARTLET_TEST_DIRECTORY=/lab quietly bochs_lab 3600 \
        --add "${end_to_end[0]}" --add .build/guest/faulty --add "${MARTLET_CACHE:-$HOME/.cache/martlet}/programs" \
        "${end_to_end[@]}" --filter "$1"
}

# Whether the Bochs lab can be made here; says why not.
has_bochs() {
    (. scripts/need.sh && need bochs bochsbios vgabios isolinux syslinux-common xorriso) >/dev/null 2>&1 && return
    echo "== the Bochs lab: skipped, Debian's packages for it can't be installed"
    return 1
}

step "modules" scripts/modules-check.py
step "format" make --no-print-directory lint
step "generated code is up to date" scripts/protos.sh --check
step "unit tests: build" swift build --build-tests
if [[ $mode == all ]]; then
    MARTLET_TTRPC_PEER=$(scripts/ttrpc-peer.sh)
    export MARTLET_TTRPC_PEER
fi
tests "unit tests" swift_test --skip EndToEnd
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
    tests "end to end, QEMU" in_halves
    # One of each kind; the whole of it takes a quarter of an hour and more.
    some='VCPUTests|aContainerRunsToItsEnd|theGuestHasWhatTheNamespaceHas|aReadOnlyDisk|anImageIsTheRoot|aKilledHypervisor'
    some+='|CRITests/aPodRuns|aConfigMapIsFollowed|tasksAreServed|aContainerLivesByItsCommands|itIsMappedAndNotCopied'
    some+='|podsFromOneTemplateAreNotAlike|aRunningContainerGoesOnFromACheckpoint|aForkGoesOnApart'
    tests "end to end, the built-in VMM in the lab: some" lab_test 600 "$some"
    finish
    exit
fi

export MARTLET_TEST_ALL=1
# The tests of the built-in VMM, whole, in pieces of about twenty minutes.
engines='[./](CRI|Docker|Podman|Containerd|Systemd|BenchPod|Engine)[A-Za-z]*Tests/'
stock() (
    # The distribution's kernel has no /proc/config.gz, which KernelTests reads.
    export MARTLET_GUEST=$PWD/.build/guest/stock MARTLET_TEST_PATIENCE=2
    "$@"
)
kvm_lab() (
    # 5 GiB of memory, on both sides of the gap.
    lab_options=(-m 12288)
    export MARTLET_TEST_LARGE=1
    lab_test 3600 "$@"
)
# QEMU drives KVM here, as on hardware; elsewhere it only emulates.
qemu_lab() (
    lab_driver=qemu
    lab_test 3600 "$@"
)
tests "fuzzing" scripts/fuzz.sh
tests "end to end, QEMU" in_halves
tests "the lab is honest" scripts/lab-check.sh qemu
tests "the built-in VMM in the lab: machines and containers" kvm_lab 'EndToEnd|MachineTests' "PreparationTests|$engines"
tests "the built-in VMM in the lab: engines" kvm_lab "$engines" PreparationTests
tests "QEMU with KVM in the lab: containers" qemu_lab EndToEnd "PreparationTests|$engines"
tests "QEMU with KVM in the lab: engines" qemu_lab "$engines" PreparationTests
if has_bochs; then
    tests "the Bochs lab is honest" scripts/lab-check.sh bochs
    tests "three containers on Intel's VMX in the Bochs lab" bochs_lab 600 scripts/lab/containers.sh some
    tests "50 starts in the Bochs lab" bochs_lab 3600 scripts/lab/containers.sh starts 50
    tests "one start on other processors of the Bochs lab" other_models
    tests "end to end in the Bochs lab" bochs_test '[./](ContainerTests|StdioTests|ExitTests|FaultTests)/'
else
    skipped+=("the Bochs lab")
fi
tests "Debian packages" scripts/deb-check.sh
tests "containerd's images as disks" scripts/containerd-disks-check.sh
# The lab has no network: containerd is there from the step before.
lab_disks() (
    export MARTLET_SNAPSHOTTERS=devmapper MARTLET_TEST_DRIVER=kvm MARTLET_TEST_PATIENCE=4 MARTLET_TEST_DIRECTORY=/lab
    scripts/lab.sh -t 1800 scripts/containerd-disks-check.sh
)
tests "containerd's images as disks of a device mapper in the lab" lab_disks
tests "CRI's checkpoints, refused over QEMU" scripts/containerd-checkpoint-check.sh
# containerd and criu are there from the step before.
lab_checkpoints() (
    export MARTLET_TEST_DRIVER=kvm MARTLET_TEST_PATIENCE=4 MARTLET_TEST_DIRECTORY=/lab
    scripts/lab.sh -t 1800 scripts/containerd-checkpoint-check.sh
)
tests "CRI's checkpoints in the lab" lab_checkpoints
tests "end to end, QEMU, stock kernel" stock in_halves --skip KernelTests
tests "the built-in VMM in the lab, stock kernel: containers" stock lab_test 3600 EndToEnd "KernelTests|PreparationTests|$engines"
tests "the built-in VMM in the lab, stock kernel: engines" stock lab_test 3600 "$engines" PreparationTests
finish
