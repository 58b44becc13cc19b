#!/bin/bash
# deb-check-inside.sh VERSION HIGHER : what deb-check.sh runs in a clean Debian, whose /check has the packages.
set -uo pipefail
version=$1 higher=$2 passed=0 failed=0
cd /check
image=docker.io/library/busybox:latest
export DEBIAN_FRONTEND=noninteractive

ok() { passed=$((passed + 1)) && echo "ok      $1 (${SECONDS} s)"; }
bad() { failed=$((failed + 1)) && echo "FAILED  $1: ${2:-}" | head -c 2000 && echo; }
# check NAME COMMAND… : the command must succeed.
check() {
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then ok "$name"; else bad "$name" "$said"; fi
}
# refused NAME COMMAND… : the command must fail.
refused() {
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then bad "$name" "$said"; else ok "$name"; fi
}
# same NAME WANTED FOUND
same() { if [[ $2 == "$3" ]]; then ok "$1"; else bad "$1" "wanted '$2', found '$3'"; fi; }
await() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do ((SECONDS < end)) || return 1; sleep 0.2; done
}
quietly() { "$@" >log 2>&1 || { tail -n 20 log; return 1; }; }
apt() { quietly apt-get -q -y -o DPkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"; }

### with the network

if [[ ${3:-} != apart ]]; then
    check "engines are installed" apt install --no-install-recommends containerd runc podman conmon docker.io iproute2 qemu-system-x86 man-db file
    apt-get install -s ./martlet_*.deb ./martlet-guest_*.deb >simulation 2>&1
    check "what it depends on is there" grep -q "^Inst martlet " simulation
    depends() { dpkg-deb -f ./martlet_*.deb "$1"; }
    check "the libraries come from dpkg-shlibdeps" grep -q 'libc6 (>=' <(depends Depends)
    check "the emulator is recommended" grep -q qemu-system-x86 <(depends Recommends)
    # The engines' interfaces and rules are in a network of their own.
    unshare --net bash "$0" "$version" "$higher" apart
    exit
fi

### what a machine has before

ip link set lo up
cp /etc/containerd/config.toml config.before 2>/dev/null || : >config.before
# All files but those of dpkg, of the engines and of what runs.
files() {
    find / -xdev \( -path /check -o -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/log -o -path /var/cache \
        -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/containerd -o -path /var/lib/docker -o -path /var/lib/containers \
        -o -path /root -o -path /etc/docker -o -path /etc/cni -o -path /opt/containerd -o -path /var/lib/systemd \) -prune -o -print | sort
}
files >files.before

start_containerd() {
    containerd >>containerd.log 2>&1 &
    echo $! >containerd.pid
    await 30 ctr version
}
start_docker() {
    dockerd --bridge=none --iptables=false --ip6tables=false --exec-opt native.cgroupdriver=cgroupfs \
        --add-runtime martlet=/usr/bin/martlet >dockerd.log 2>&1 &
    echo $! >dockerd.pid
    await 60 docker version
}
podman() { command podman --cgroup-manager cgroupfs --events-backend file --storage-driver vfs "$@"; }
check "containerd runs" start_containerd
check "docker runs" start_docker
quietly ctr image import image.tar && quietly docker load -i image.tar && quietly podman load -i image.tar || bad "the images" "$(tail -n 3 log)"

### installation

check "install" apt install ./martlet_*.deb ./martlet-guest_*.deb ./martlet-containerd_*.deb
same "the version" "martlet version $version" "$(martlet --version | head -n 1)"
martlet check >checked 2>&1
check "martlet check finds the guest" grep -q "/usr/share/martlet/guest" checked
check "its configuration is accepted as it is" martlet --config /etc/martlet/martlet.toml pod list
same "what in /etc is a conffile" "/etc/containers/containers.conf.d/martlet.conf /etc/crio/crio.conf.d/10-martlet.conf /etc/martlet/martlet.toml" \
    "$(dpkg-query -Wf '${Conffiles}\n' martlet martlet-guest martlet-containerd | awk 'NF {print $1}' | sort | paste -sd ' ')"
check "nothing else is in /etc" test -z "$(dpkg -L martlet martlet-guest martlet-containerd | grep '^/etc/' | while read -r each; do
    [[ -d $each ]] || dpkg-query -Wf '${Conffiles}\n' martlet | grep -q " $each " || echo "$each"; done)"
for page in martlet martlet-pod-list containerd-shim-martlet-v2 martlet-containerd-setup; do
    check "man $page" test -s "$(man -w "$page" 2>/dev/null || echo none)"
done
check "bash completes martlet" bash -c '. /usr/share/bash-completion/completions/martlet && complete -p martlet'

kernel() { grep -c -- "-$1\$" <<<"$2"; }
bundle() { # NAME COMMAND…
    mkdir -p "/check/$1/rootfs/bin" /check/"$1"/rootfs/{dev,proc,sys,tmp,etc}
    cp busybox "/check/$1/rootfs/bin/"
    ./busybox --list | while read -r each; do [[ $each == busybox ]] || ln -sf busybox "/check/$1/rootfs/bin/$each"; done
    martlet spec --bundle "/check/$1" --no-terminal -- "${@:2}"
    sed -i 's/"readonly" *: *true/"readonly": false/' "/check/$1/config.json"
}
bundle once uname -r
by_ctr() { ctr run --rm --runtime io.containerd.martlet.v2 "$image" "once-$RANDOM" "$@"; }
by_podman() { podman run --rm --runtime martlet --network none "$image" "$@"; }
by_docker() { docker run --rm --runtime martlet --network none "$image" "$@"; }
by_martlet() { martlet run --bundle once "once-$RANDOM"; }
for way in ctr podman docker martlet; do
    said=$("by_$way" uname -r 2>&1)
    same "$way runs a pod in a machine" 1 "$(kernel martlet "$said")"
done

setup() { martlet-containerd-setup "$@"; }
check "the runtime is added to the CRI plugin" setup add
check "twice changes nothing" grep -q unchanged <(setup add)
cp /etc/containerd/config.toml config.added
check "containerd sees it" grep -q 'cri"\.containerd\.runtimes\.martlet\]' <(containerd config dump)
check "status tells where" setup status
check "it is taken away" setup remove
check "and the configuration is as before" cmp config.before /etc/containerd/config.toml
check "it is added again" setup add
check "as it was" cmp config.added /etc/containerd/config.toml
# ended NAME : ends a daemon.
ended() {
    kill "$(<"$1.pid")"
    await 20 gone "$(<"$1.pid")"
}
gone() { ! readlink "/proc/$1/exe"; }
restart_containerd() { ended containerd && start_containerd; }
check "containerd starts with it" restart_containerd
check "with its CRI plugin" grep -q 'v1 *cri .* ok' <(ctr plugins ls)
printf 'version = 1\n' >old.toml
refused "a configuration in another format is refused" setup add --config /check/old.toml
same "and left alone" "version = 1" "$(cat old.toml)"
printf 'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.martlet]\nruntime_type = "mine"\n' >own.toml
cp own.toml own.before
check "one that has the runtime already is left alone" setup add --config /check/own.toml
check "byte for byte" cmp own.before own.toml

### an upgrade while pods run

counter='n=0; while :; do n=$((n + 1)); echo $n >/tmp/n; sleep 0.1; done'
bundle web sh -c "$counter"
quietly ctr run -d --runtime io.containerd.martlet.v2 "$image" web sh -c "$counter" || bad "ctr run" "$(tail -n 3 log)"
quietly podman run -d --name web --runtime martlet --network none "$image" sh -c "$counter" || bad "podman run" "$(tail -n 3 log)"
quietly docker run -d --name web --runtime martlet --network none "$image" sh -c "$counter" || bad "docker run" "$(tail -n 3 log)"
quietly martlet run -d --bundle web own || bad "martlet run" "$(tail -n 3 log)"
in_ctr() { ctr task exec --exec-id "e$RANDOM" web "$@"; }
in_podman() { podman exec web "$@"; }
in_docker() { docker exec web "$@"; }
in_martlet() { martlet exec own "$@"; }
declare -A boot counted
# While it is written the file may be empty.
count() { "in_$1" cat /tmp/n | grep .; }
counts_on() { [[ $(count "$1") -gt ${counted[$1]} ]]; }
for way in ctr podman docker martlet; do
    check "a pod of $way runs" await 20 count "$way"
    boot[$way]=$("in_$way" cat /proc/sys/kernel/random/boot_id)
    counted[$way]=$(count "$way" || echo 1)
done
quietly ctr run -d --runtime io.containerd.martlet.v2 "$image" ended sh -c 'exit 7'
pods() { martlet pod list | tail -n +2 | wc -l; }
echo "# Of the administrator's." >>/etc/martlet/martlet.toml

# Load: processes in a pod that runs, and new pods.
touch load
while [[ -e load ]]; do in_ctr true || echo "exec"; done >failures.exec 2>&1 &
load=($!)
while [[ -e load ]]; do by_martlet >/dev/null || echo "run"; done >failures.run 2>&1 &
load+=($!)
sleep 2
check "upgrade" apt install ./new/*.deb
sleep 2
rm load
wait "${load[@]}"
same "processes started in a pod all the while" "" "$(head -n 3 failures.exec)"
same "pods started all the while" "" "$(head -n 3 failures.run)"
same "the higher version is there" "$higher $higher $higher" "$(dpkg-query -Wf '${Version}\n' martlet martlet-guest martlet-containerd | paste -sd ' ')"
check "the administrator's configuration was kept" grep -q "administrator's" /etc/martlet/martlet.toml
check "and the new one is beside it" grep -q "higher version" /etc/martlet/martlet.toml.dpkg-dist
rm -f /etc/martlet/martlet.toml.dpkg-*
for way in ctr podman docker martlet; do
    same "the pod of $way goes on" "${boot[$way]}" "$("in_$way" cat /proc/sys/kernel/random/boot_id 2>&1)"
    check "and what is in it" await 10 counts_on "$way"
    same "with the kernel of before" 1 "$(kernel martlet "$("in_$way" uname -r)")"
done
# The machines map the root image: by the same name, but another file.
maps() { cat /proc/[0-9]*/maps 2>/dev/null | grep -c "root\.erofs$1\$"; }
check "their machines have the agent's image of before" test "$(maps ' (deleted)')" -ge 4
same "and none the new one" 0 "$(maps '')"
same "what had ended before is known" 7 "$(quietly ctr task delete ended; sed -n 's/.*exit code \([0-9]*\).*/\1/p' log | tail -n 1)"
quietly ctr container delete ended

# Containers that join a pod of before: by its own server, and by the new command line.
joins() { [[ $("$@" cat /proc/sys/kernel/random/boot_id 2>&1) == "$wanted" ]]; }
wanted=${boot[ctr]}
check "a container joins the old shim's pod" joins ctr run --rm --runtime io.containerd.martlet.v2 --annotation io.containerd.runc.v2.group=web "$image" beside
wanted=${boot[podman]}
check "one of podman joins" joins podman run --rm --runtime martlet --network container:web "$image"
wanted=${boot[docker]}
check "one of docker joins" joins docker run --rm --runtime martlet --network container:web "$image"

for way in ctr podman docker martlet; do
    said=$("by_$way" uname -r 2>&1)
    same "a new pod of $way has the new kernel" 1 "$(kernel mart1et "$said")"
done
quietly martlet run -d --bundle web new
check "and the new image of the agent" await 10 test "$(maps '')" -ge 1
quietly martlet delete -f new

check "containerd, restarted, finds the old pod" restart_containerd
check "and executes in it" in_ctr true
refused "no removal while pods run" apt remove martlet
check "they still do" in_martlet true

end_ctr() { ctr task kill -s KILL web && await 20 grep -q STOPPED <(ctr task list) && ctr task delete web >/dev/null; ctr container delete web; }
check "the old pod of ctr ends" end_ctr
check "that of podman stops" podman rm -f -t 1 web
check "that of docker stops" docker rm -f web
check "that of martlet is deleted" martlet delete -f own
none() { [[ $(pods) == 0 ]]; }
check "no pod is left" await 20 none

### removal

check "remove" apt remove martlet martlet-guest martlet-containerd
refused "ctr has no such runtime" by_ctr true
refused "podman has none" by_podman true
refused "docker has none" by_docker true
same "no program is left" "" "$(find /usr -name '*martlet*' | paste -sd ' ')"
check "the configuration is" test -e /etc/martlet/martlet.toml
check "containerd's configuration is as before" cmp config.before /etc/containerd/config.toml
check "podman works" podman run --rm --network none --runtime runc "$image" true
check "ctr works" ctr run --rm "$image" other true
check "it can be installed again" apt install ./new/*.deb
same "with the administrator's configuration" 1 "$(grep -c "administrator's" /etc/martlet/martlet.toml)"
said=$(by_podman uname -r 2>&1)
same "and runs pods" 1 "$(kernel mart1et "$said")"
mkdir -p /var/lib/martlet/templates/some && touch /etc/martlet/martlet.d/10-own.toml

check "purge" apt purge martlet martlet-guest martlet-containerd
check "the engines end" eval "ended dockerd && ended containerd"
files >files.after
same "no file is left" "" "$(diff files.before files.after | grep '^[<>]' | head -n 20 | paste -sd ' ')"
same "nor in /run" "" "$(find /run -name '*martlet*' | paste -sd ' ')"
same "nor a process" "" "$(for each in /proc/[0-9]*/exe; do readlink "$each"; done 2>/dev/null | grep martlet)"
echo "$passed of $((passed + failed)) passed"
exit $((failed > 0))
