#!/bin/bash
# Makes what the lab (lab.sh) boots and prints the directory that holds it: vmlinux, vmlinuz, version, modules/ as it belongs
# to /lib/modules, and for each engine initramfs-ENGINE. The kernel is Debian's cloud kernel, which has kvm_amd and
# kvm_intel; an initramfs has scripts/lab/init-ENGINE.c and the modules that are needed before the root is there, or that
# give the lab its devices.
# The result is kept in ${MARTLET_CACHE:-~/.cache/martlet}/lab/<hash of all inputs>.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/need.sh"

# With parameters behind a colon. Polling for a halted guest's next interrupt would take time from the other processor; why KVM takes
# any frequency is in docs/lab.md.
kvm=kvm:halt_poll_ns=0,tsc_tolerance_ppm=100000
common="overlay tun vhost_net vhost_vsock loop ext4 crc32c_generic"
without=()
for section in .BTF _ftrace_eval_map _ftrace_events .orc_unwind .orc_unwind_ip; do without+=(-R "$section" -R ".rela$section"); done
declare -A modules=(
    [qemu]="virtio_pci virtio_console virtiofs virtio_blk $kvm kvm-amd $common"
    [bochs]="ata_piix sd_mod $kvm kvm-intel kvm-amd $common"
)
cache=${MARTLET_CACHE:-$HOME/.cache/martlet}/lab

say() { echo "lab: $*" >&2; }

# The package that the meta package stands for today, as NAME=VERSION; asked again when the package lists have changed.
current() {
    local answer=$cache/kernel-current
    if [ ! -s "$answer" ] || [ /var/lib/apt/lists -nt "$answer" ]; then
        mkdir -p "$cache"
        apt-cache show --no-all-versions linux-image-cloud-amd64 2>/dev/null |
            sed -n 's/^Depends: \(linux-image-[^ ]*\) (= \([^)]*\)).*/\1=\2/p' >"$answer.$$"
        mv "$answer.$$" "$answer"
    fi
    cat "$answer"
}

key() { { echo "$1"; cat "$here"/{lab-image.sh,cpio.py} "$here"/lab/*.[ch]; } | sha256sum | cut -c 1-32; }

image=$(current)
[ -n "$image" ] || { refresh_package_lists; image=$(current); }
[ -n "$image" ] || { say "apt knows no linux-image-cloud-amd64: is this Debian on x86-64?"; exit 1; }
result=$cache/$(key "$image")
if [ -e "$result/version" ]; then
    touch "$result"
    echo "$result"
    exit 0
fi

need kmod zstd xz-utils python3 gcc libc6-dev binutils >&2
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
work=$(mktemp -d "$cache/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
say "fetching $image"
download() { apt-get download -qq -o APT::Sandbox::User=root "$image" >"$work/apt.log" 2>&1; }
if ! download; then
    # The lists may be older than the archive, which keeps only current versions.
    refresh_package_lists
    image=$(current)
    result=$cache/$(key "$image")
    download || { say "cannot fetch $image:"; cat "$work/apt.log" >&2; exit 1; }
fi
dpkg-deb -x linux-image-*.deb root
release=$(basename root/boot/vmlinuz-*)
release=${release#vmlinuz-}

mkdir out
python3 "$here/extract-vmlinux.py" "root/boot/vmlinuz-$release" >out/vmlinux
cp "root/boot/vmlinuz-$release" out/vmlinuz
# The path is that of the finished directory, but depmod writes only names below it.
depmod -b root "$release"
mv root/lib/modules out/modules

# add_modules DIRECTORY MODULE… : the modules, unpacked, with what they depend on, and the file "order", which init reads.
add_modules() {
    local directory=$1 wanted name parameters path file plain own
    local -A taken=()
    shift
    mkdir "$directory"
    for wanted in "$@"; do
        name=${wanted%%:*} parameters=""
        case $wanted in *:*) parameters=${wanted#*:} ;; esac
        # Lines are "insmod /path/name.ko" with dependencies first, or "builtin name".
        modprobe -d "$work/out" -S "$release" --show-depends "$name" >depends 2>&1 ||
            { say "$release has no module $name:"; cat depends >&2; exit 1; }
        while read -r _ path _; do
            file=$(basename "$path")
            case $path in */*) ;; *) continue ;; esac
            [ -z "${taken[$file]:-}" ] || continue
            taken[$file]=1
            plain=${file%.xz} own=""
            [ "${plain%.ko}" != "$name" ] || own=${parameters//,/ }
            case $path in
            *.xz) xz -dc "$path" ;;
            *) cat "$path" ;;
            esac >"$directory/$plain"
            # What only debuggers and tracers read is sorted and checked at each load: seconds under emulation.
            strip --strip-debug "${without[@]}" "$directory/$plain"
            echo "$plain${own:+ $own}" >>"$directory/order"
        done <depends
    done
}

ln -sfn . out/lib
for engine in "${!modules[@]}"; do
    gcc -static -O2 -Wall -Wextra -Werror -s -o "init-$engine" "$here"/lab/{init-"$engine",system,command}.c
    # shellcheck disable=SC2086
    add_modules "load-$engine" ${modules[$engine]}
    {
        for dir in dev proc sys modules host changes new job; do echo "dir /$dir 0755"; done
        echo "node /dev/console 0600 5 1"
        echo "file /init 0755 init-$engine"
        for file in "load-$engine"/*; do echo "file /modules/$(basename "$file") 0644 $file"; done
    } | python3 "$here/cpio.py" >"out/initramfs-$engine"
done
rm out/lib
echo "$release" >out/version
[ -e "$result/version" ] || mv -T out "$result"
# Of old ones the two that were used last stay.
find "$cache" -mindepth 1 -maxdepth 1 -type d -regextype posix-extended -regex '.*/[0-9a-f]{32}' -printf '%T@ %p\n' |
    sort -rn | tail -n +4 | cut -d ' ' -f 2- | xargs -r -d '\n' rm -rf
echo "$result"
