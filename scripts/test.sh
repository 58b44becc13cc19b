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

# Runs a test command that prints a line for every suite and case: keeps it in a file, shows the end of it, and on failure
# what failed; the file is failed_log then.
failed_log=""
quietly() {
    local log
    log=$(mktemp /tmp/martlet-test.XXXXXX)
    if "$@" >"$log" 2>&1; then
        grep -E -i 'skip' "$log" | head -n 40 || true
        tail -n 4 "$log"
        rm -f "$log"
    else
        tail -n 300 "$log"
        grep -E '✘|recorded an issue' "$log" | head -n 40 || true
        failed_log=$log
        return 1
    fi
}

swift_test() { quietly swift test --skip-build --no-parallel "$@"; }

# Runs the end-to-end tests in two processes at once: most of the time one waits for its guest's only vCPU. SwiftPM runs one
# process of tests at a time, so the bundle is run itself.
in_halves() {
    local half pids=() failed=0
    # What takes long to make and is in the cache then, for both.
    swift_test --filter PreparationTests
    for half in "--filter [./](CRI|Docker|Podman|BenchPod)[A-Za-z]*Tests/" \
        "--filter EndToEnd --skip [./](CRI|Docker|Podman|BenchPod)[A-Za-z]*Tests/ --skip PreparationTests"; do
        # shellcheck disable=SC2086
        NO_COLOR=1 quietly .build/debug/martletPackageTests.xctest --testing-library swift-testing --no-parallel $half "$@" &
        pids+=($!)
    done
    for half in "${pids[@]}"; do wait "$half" || failed=1; done
    return "$failed"
}

# Runs end-to-end tests inside the lab, over the driver lab_driver: seconds, and the names of suites or tests, as a regular
# expression, then those to leave out. Now and then the lab's emulator breaks a guest (docs/lab.md): what failed is tried
# again, twice at most and with one processor, where it does not, and that is said.
lab_test() {
    # What takes long to make is made here; the lab sees the cache.
    swift_test --filter PreparationTests
    local try names filter=$2 skip=${3:-} options=("${lab_options[@]}")
    for try in first second third; do
        if MARTLET_TEST_DRIVER=$lab_driver MARTLET_TEST_PATIENCE=${lab_patience:-3} MARTLET_TEST_DIRECTORY=/lab \
            quietly scripts/lab.sh -t "$1" "${options[@]}" .build/debug/martletPackageTests.xctest \
            --testing-library swift-testing --no-parallel --filter "$filter" ${skip:+--skip "$skip"}; then return 0; fi
        echo "== the $try try in the lab failed"
        options=("${lab_options[@]}" -c 1)
        # A lab that broke down does not say what failed; all is tried again.
        names=$(sed -n 's/^✘ Test \([A-Za-z0-9_]*\)(.* failed after.*/\1/p' "$failed_log" | sort -u | paste -sd '|')
        if [[ -n $names ]] && grep -q '^✘ Test run with' "$failed_log"; then filter="[./]($names)\\("; fi
        rm -f "$failed_log"
    done
    return 1
}
lab_options=() lab_driver=kvm

step "modules" scripts/modules-check.py
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
        --add .build/debug/martletPackageTests.xctest --add .build/guest/faulty --add "${MARTLET_CACHE:-$HOME/.cache/martlet}/programs" \
        .build/debug/martletPackageTests.xctest --testing-library swift-testing --no-parallel --filter "$1"
}

# Whether the Bochs lab can be made here; says why not.
has_bochs() {
    (. scripts/need.sh && need bochs bochsbios vgabios isolinux syslinux-common xorriso) >/dev/null 2>&1 && return
    echo "== the Bochs lab: skipped, Debian's packages for it can't be installed"
    return 1
}

step "format" make --no-print-directory lint
step "generated code is up to date" scripts/protos.sh --check
step "unit tests: build" swift build --build-tests
if [[ $mode == all ]]; then
    MARTLET_TTRPC_PEER=$(scripts/ttrpc-peer.sh)
    export MARTLET_TTRPC_PEER
fi
step "unit tests" swift_test --skip EndToEnd
[[ $mode == unit ]] && exit 0

agent_tests() (cd guest-agent && quietly swift test --no-parallel)
step "agent tests" agent_tests
step "executables" make --no-print-directory build
step "guest with the own kernel" make --no-print-directory guest
step "guest with the faulty agent" make --no-print-directory guest-faulty
step "guest with the stock kernel" make --no-print-directory guest-stock
if [[ $mode == all ]]; then export MARTLET_TEST_ALL=1; fi
if [[ $mode == all ]]; then step "fuzzing" scripts/fuzz.sh; fi
step "end to end, QEMU" in_halves
step "the lab is honest" scripts/lab-check.sh qemu
if [[ $mode == ci ]]; then
    # Some; the whole of it takes a quarter of an hour.
    some='VCPUTests|theKernelIsTheGuests|theGuestHasWhatTheNamespaceHas|laterChangesFollow|aReadOnlyDisk'
    some+='|aKilledHypervisor|theDistributionsKernelRuns|aContainerRunsToItsEnd|tasksAreServed|aConfigMapIsFollowed|CRITests/aPodRuns'
    some+='|aContainerLivesByItsCommands|aContainerRunsOnTheBridge|podsFromOneTemplateAreNotAlike|itIsMappedAndNotCopied'
    step "end to end, the built-in VMM in the lab: some" lab_test 400 "$some"
    if has_bochs; then step "three containers on Intel's VMX in the Bochs lab" bochs_lab 600 scripts/lab/containers.sh some; fi
else
    # 5 GiB of memory, on both sides of the gap.
    lab_options=(-m 12288)
    MARTLET_TEST_LARGE=1 step "end to end, the built-in VMM in the lab" lab_test 3600 'EndToEnd|MachineTests' PreparationTests
    # QEMU drives KVM here, as on hardware; elsewhere it only emulates.
    lab_driver=qemu
    step "end to end, QEMU with KVM in the lab" lab_test 3600 EndToEnd PreparationTests
    lab_driver=kvm
    if has_bochs; then
        step "the Bochs lab is honest" scripts/lab-check.sh bochs
        step "50 starts in the Bochs lab" bochs_lab 3600 scripts/lab/containers.sh starts 50
        step "one start on other processors of the Bochs lab" other_models
        step "end to end in the Bochs lab" bochs_test '[./](ContainerTests|StdioTests|ExitTests|FaultTests)/'
    fi
    # Everything again over the distribution's kernel; it has no /proc/config.gz, which KernelTests reads.
    export MARTLET_GUEST=$PWD/.build/guest/stock MARTLET_TEST_PATIENCE=2
    step "end to end, QEMU, stock kernel" in_halves --skip KernelTests
    step "end to end, the built-in VMM in the lab, stock kernel" lab_test 3600 EndToEnd 'KernelTests|PreparationTests'
fi
echo "== all of it: $((SECONDS - began)) s"
