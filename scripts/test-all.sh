# test-all.sh: the steps of `make test-all` and `make test-matrix`; scripts/test.sh sources it, and has what it calls.

# The suites that drive engines.
engines='[./](CRI|Docker|Podman|Containerd|Systemd|BenchPod|BenchIsolation|Engine)[A-Za-z]*Tests/'

# What the built-in VMM shows in the lab: of its devices and of containers what depends on the machine, and of each engine the plainest
# use. The matrix has the whole.
devices='[./](Fault|Memory|Resize|Disk|DiskFreeze|NetworkReplacement)Tests/|[./](anImageIsTheRoot|aHundredLayersTakeOneSlot)\('
devices+='|[./](aFullRootFailsThereAndAKilledMachineLeavesItWhole|theGuestHasWhatTheNamespaceHas|bytesGoBothWays)\('
snapshots='[./](Template|EngineTemplate|Pool|Checkpoint|PodCheckpoint|PodCheckpointFault)Tests/'
containers='[./](Container|MountPropagation|Stdio|Exit|Terminal|SharedFiles|Launch|Kernel|Trace|MachineShell|UserNamespace|Privileged)Tests/'
shims='[./](ShimTaskScenario|ShimSandboxScenario|Transfer)Tests/'
short='CRITests/aPodRuns|CRIVolumeTests/aConfigMapIsFollowed|CRIResourceTests/aLimitIsChanged|CRINetworkTests/portsOfTheHost'
short+='|PodmanTests/aPodIsOneMachine|PodmanTests/aContainerIsUsed|DockerTests/aContainerIsUsed|ContainerdTests/tasksAreServed'
# What each other kernel and driver has to show.
plain='[./](Container|Exit|Disk)Tests/|VCPUTests|NetworkTests/theGuestHasWhatTheNamespaceHas|CRITests/aPodRuns'
# Repetitions and sizes that only the built-in VMM can show.
soaks='[./](MachineShape|Resize|TemplateSoak)Tests/|[./]aContainerLivesByItsCommands\('

everything() (
    export MARTLET_TEST_ALL=1
    "$@"
)
stock() (
    # The distribution's kernel has no /proc/config.gz, which KernelTests reads.
    export MARTLET_GUEST=$PWD/.build/guest/stock MARTLET_TEST_PATIENCE=2
    "$@"
)
# 5 GiB of memory, on both sides of the gap.
large_lab() (
    lab_options+=(-m 12288)
    export MARTLET_TEST_LARGE=1
    "$@"
)
# QEMU drives KVM here, as on hardware; elsewhere it only emulates.
qemu_lab() (
    lab_driver=qemu
    "$@"
)

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
        --add "${bundle[0]}" --add .build/guest/faulty --add "${MARTLET_CACHE:-$HOME/.cache/martlet}/programs" \
        "${bundle[@]}" --filter "$1"
}

# Whether the Bochs lab can be made here.
has_bochs() { (. scripts/need.sh && need bochs bochsbios vgabios isolinux syslinux-common xorriso) >/dev/null 2>&1; }

# The lab has no network: what the scripts fetch is there from a run outside it.
lab_script() (
    export MARTLET_TEST_DRIVER=kvm MARTLET_TEST_PATIENCE=4 MARTLET_TEST_DIRECTORY=/lab
    scripts/lab.sh -t 1800 "$@"
)
lab_disks() (
    export MARTLET_SNAPSHOTTERS=devmapper
    lab_script scripts/containerd-disks-check.sh
)

# On this machine: everything over QEMU, what installs and fetches, the stock kernel.
host_steps() {
    export MARTLET_TEST_PATIENCE=2
    tests "end to end, QEMU" everything in_parts
    TIME=${TIME:-20} tests "fuzzing" scripts/fuzz.sh
    tests "Debian packages" scripts/deb-check.sh
    tests "end to end, QEMU, stock kernel: some" stock end_to_end_of "$plain"
}

# The built-in VMM in the lab, QEMU with KVM there, and the lab itself.
lab_steps() {
    # With one processor: two that are kept from running wait for each other's locks.
    lab_options=(-c 1)
    lab_patience=6
    tests "containerd's images as disks" scripts/containerd-disks-check.sh
    tests "containerd's images as disks of a device mapper in the lab" lab_disks
    tests "the lab is honest" scripts/lab-check.sh qemu
    tests "the built-in VMM in the lab: devices" lab_test 3000 "$devices" PreparationTests
    tests "the built-in VMM in the lab: templates and checkpoints" lab_test 3000 "$snapshots" PreparationTests
    tests "the built-in VMM in the lab: machines and containers" lab_test 3000 "MachineTests\\.|$containers" PreparationTests
    tests "the built-in VMM in the lab: shims" lab_test 3000 "$shims" PreparationTests
    tests "the built-in VMM in the lab: engines" lab_test 3000 "$short" PreparationTests
    tests "CRI's checkpoints, refused over QEMU" scripts/containerd-checkpoint-check.sh
    tests "CRI's checkpoints in the lab" lab_script scripts/containerd-checkpoint-check.sh
    tests "the built-in VMM in the lab: soaks" everything large_lab lab_test 3000 "$soaks" PreparationTests
    tests "the built-in VMM in the lab, stock kernel: some" stock lab_test 1800 "$plain" PreparationTests
    tests "QEMU with KVM in the lab: some" qemu_lab lab_test 1800 "$plain" PreparationTests
    if has_bochs; then
        tests "three containers on Intel's VMX in the Bochs lab" bochs_lab 600 scripts/lab/containers.sh some
    else
        skip "the Bochs lab" "Debian's packages for it can't be installed"
    fi
}

# `make test-all`. Each lane has a processor of its own: thirty pods at once would keep a lab beside them from running.
all() {
    lane host host_steps 0
    lane lab lab_steps 1
    wait_for_lanes
}

# `make test-matrix`: the built-in VMM with each kernel, QEMU with KVM and the Bochs lab, whole. It takes hours.
matrix() {
    export MARTLET_TEST_ALL=1
    tests "the built-in VMM: machines and containers" large_lab lab_test 3600 'EndToEnd|MachineTests' "PreparationTests|$engines"
    tests "the built-in VMM: engines" large_lab lab_test 3600 "$engines" PreparationTests
    tests "QEMU with KVM: containers" qemu_lab lab_test 3600 EndToEnd "PreparationTests|$engines"
    tests "QEMU with KVM: engines" qemu_lab lab_test 3600 "$engines" PreparationTests
    tests "QEMU, stock kernel" stock in_parts --skip KernelTests
    tests "the built-in VMM, stock kernel: containers" stock lab_test 3600 EndToEnd "KernelTests|PreparationTests|$engines"
    tests "the built-in VMM, stock kernel: engines" stock lab_test 3600 "$engines" PreparationTests
    TIME=${TIME:-60} tests "fuzzing" scripts/fuzz.sh
    if has_bochs; then
        tests "the Bochs lab is honest" scripts/lab-check.sh bochs
        tests "50 starts in the Bochs lab" bochs_lab 3600 scripts/lab/containers.sh starts 50
        tests "one start on other processors of the Bochs lab" other_models
        tests "end to end in the Bochs lab" bochs_test '[./](ContainerTests|StdioTests|ExitTests|FaultTests)/'
    else
        skip "the Bochs lab" "Debian's packages for it can't be installed"
    fi
}
