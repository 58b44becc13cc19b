#!/bin/bash
# libvirt-check.sh [FILTER [SKIP]] : builds Martlet with the package trait Libvirt (into MARTLET_LIBVIRT_BUILD; .build/libvirt), starts a libvirtd of its own,
# and runs LibvirtTests, then with pods as domains of that libvirtd the suites of containers, faults, networks, disks and CRI; or the
# end-to-end tests that regular expressions name, and leave out. The guest is that of `make guest`.
set -euo pipefail
cd "$(dirname "$0")/.."
suites='[./](Container|Stdio|Exit|Fault|Network|SourceFilter|Disk|DiskRoot|Resize|HostCgroup|CRI[A-Za-z]*)Tests/'
filter=${1:-$suites} skip=${2:-}
TRAITS=Libvirt scripts/setup.sh test
built=${MARTLET_LIBVIRT_BUILD:-.build/libvirt}
swift build --traits Libvirt --scratch-path "$built" --build-tests 2>&1 | tail -n 5
tests=("$built/debug/martletPackageTests.xctest" --testing-library swift-testing --no-parallel)
export MARTLET_BIN=$PWD/$built/debug NO_COLOR=1
if [[ $# == 0 ]]; then "${tests[@]}" --filter '[./]LibvirtTests/'; fi

work=$(mktemp -d /tmp/martlet-libvirt.XXXXXX)
daemon=
cleanup() {
    [[ -z $daemon ]] || { kill "$daemon" && wait "$daemon"; } 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
mkdir "$work"/{etc,run,socket}
cat >"$work/libvirtd.conf" <<END
unix_sock_dir = "$work/socket"
auth_unix_rw = "none"
auth_unix_ro = "none"
END
# Without virtlogd, and without mount namespaces in which QEMU's /dev could not be made of this one's.
printf 'stdio_handler = "file"\nnamespaces = []\n' >"$work/etc/qemu.conf"
touch "$work/kvm"
chmod 0 "$work/kvm"
# The paths are of its own mount namespace. A /dev/kvm with which QEMU can't use KVM has libvirtd ask QEMU again and again.
unshare --mount bash -e -c '
    mkdir -p /etc/libvirt /run/libvirt
    mount --bind "$1/etc" /etc/libvirt
    mount --bind "$1/run" /run/libvirt
    if [[ -e /dev/kvm ]] && ! grep -qE "^flags.* (vmx|svm)( |$)" /proc/cpuinfo; then mount --bind "$1/kvm" /dev/kvm; fi
    exec libvirtd -f "$1/libvirtd.conf" -p "$1/pid"' - "$work" >"$work/log" 2>&1 &
daemon=$!
export MARTLET_TEST_LIBVIRT="qemu+unix:///system?socket=$work/socket/libvirt-sock"
# The first libvirtd of a host asks each QEMU for its abilities.
for ((try = 0; try < 240; try++)); do
    virsh -c "$MARTLET_TEST_LIBVIRT" capabilities >/dev/null 2>&1 && break
    kill -0 "$daemon" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.5
done
MARTLET_TEST_DRIVER=libvirt MARTLET_TEST_PATIENCE=${MARTLET_TEST_PATIENCE:-2} "${tests[@]}" --filter "$filter" ${skip:+--skip "$skip"}
