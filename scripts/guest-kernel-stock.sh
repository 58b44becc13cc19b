#!/bin/bash
# Takes Debian's cloud kernel as a guest kernel, without installing it, and prints the directory that holds the result:
# vmlinuz (as packaged), vmlinux (the ELF file inside it, which boots quicker), config, version, and modules/:
# NN-name.ko, uncompressed, with the file "order" that lists them in the order in which to load them.
# The result is kept in ${MARTLET_CACHE:-~/.cache/martlet}/kernel/stock-<hash of all inputs>.
#   --key    print that directory and fetch nothing
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/need.sh"

# What the guest cannot do without, then what containers ask for by name. What they depend on comes by itself.
wanted="virtio_pci virtio_mmio virtio_console virtio_rng vmw_vsock_virtio_transport
    fuse virtiofs virtio_blk virtio_net virtio_balloon virtio_mem overlay erofs ext4 crc32c_generic
    tun veth bridge br_netfilter dummy loop binfmt_misc
    nf_tables nft_chain_nat nft_ct nft_nat nft_masq nft_redir nft_reject_inet nft_compat nft_fib_inet
    iptable_filter iptable_nat ip6table_filter ip6table_nat
    xt_MASQUERADE xt_REDIRECT xt_nat xt_conntrack xt_addrtype xt_comment xt_mark xt_multiport xt_tcpudp"
cache=${MARTLET_CACHE:-$HOME/.cache/martlet}/kernel

say() { echo "stock kernel: $*" >&2; }

# The package that the meta package stands for today, as NAME=VERSION. Asking apt takes a second or more, so the answer is
# kept until the package lists change.
current() {
    local answer=$cache/stock-current
    if [ ! -s "$answer" ] || [ /var/lib/apt/lists -nt "$answer" ]; then
        mkdir -p "$cache"
        apt-cache show --no-all-versions linux-image-cloud-amd64 2>/dev/null |
            sed -n 's/^Depends: \(linux-image-[^ ]*\) (= \([^)]*\)).*/\1=\2/p' >"$answer.$$"
        mv "$answer.$$" "$answer"
    fi
    cat "$answer"
}

image=$(current)
[ -n "$image" ] || { refresh_package_lists; image=$(current); }
[ -n "$image" ] || { say "apt knows no linux-image-cloud-amd64: is this Debian on x86-64?"; exit 1; }
key() { echo "$1 $(sha256sum <"$here/guest-kernel-stock.sh")" | sha256sum | cut -c 1-64; }
result=$cache/stock-$(key "$image")
if [ "${1:-}" = --key ] || [ -e "$result/vmlinuz" ]; then
    echo "$result"
    exit 0
fi

need kmod zstd xz-utils python3
mkdir -p "$cache"
exec 9>"$cache/lock-stock"
flock 9
work=$(mktemp -d "$cache/stock-build.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
say "fetching $image"
download() { apt-get download -qq -o APT::Sandbox::User=root "$image" >"$work/apt.log" 2>&1; }
if ! download; then
    # The lists may be older than the archive, which keeps only current versions.
    refresh_package_lists
    image=$(current)
    result=$cache/stock-$(key "$image")
    download || { say "cannot fetch $image:"; cat "$work/apt.log" >&2; exit 1; }
fi
dpkg-deb -x linux-image-*.deb root
release=$(basename root/boot/vmlinuz-*)
release=${release#vmlinuz-}

mkdir -p out/modules
mv "root/boot/vmlinuz-$release" out/vmlinuz
mv "root/boot/config-$release" out/config
python3 "$here/extract-vmlinux.py" out/vmlinuz >out/vmlinux
echo "$release" >out/version
echo "${image/=/ }" >out/source

depmod -b root "$release"
number=0
declare -A taken=()
for module in $wanted; do
    # Lines are "insmod /path/name.ko" with dependencies first, or "builtin name".
    modprobe -d root -S "$release" --show-depends "$module" >depends 2>&1 ||
        { say "$release has no module $module:"; cat depends >&2; exit 1; }
    while read -r _ path _; do
        name=$(basename "$path")
        name=${name%%.ko*}
        case $path in */*) ;; *) continue ;; esac
        [ -z "${taken[$name]:-}" ] || continue
        taken[$name]=1
        number=$((number + 1))
        file=$(printf '%02d-%s.ko' $number "$name")
        case $path in
        *.xz) xz -dc "$path" ;;
        *.zst) zstd -qdc "$path" ;;
        *) cat "$path" ;;
        esac >"out/modules/$file"
        echo "$file" >>out/modules/order
    done <depends
done
[ -e "$result/vmlinuz" ] || mv -T out "$result"
say "$release with $number modules"
echo "$result"
