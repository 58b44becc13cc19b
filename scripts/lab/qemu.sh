# The lab's engine qemu: QEMU emulates a processor with AMD's virtualization; the root is this machine's, below an overlay.
# To be sourced by lab.sh, which says what the functions and variables mean.

default_memory=6144 default_cpus=2 engine_name=QEMU

prepare() {
    [ -z "$model" ] || broken "--model needs --engine bochs"
    [ ${#added[@]} = 0 ] || broken "--add needs --engine bochs; this lab has all of this machine's files"
    # The file server keeps owners as they are.
    [ "$(id -u)" = 0 ] || broken "must be run as root"
    need qemu-system-x86 qemu-system-common e2fsprogs >&2 || exit 125
    image=$("$here/lab-image.sh") || exit 125
    [ -z "$out" ] || { mkdir -p "$out" && out=$(realpath "$out"); } || exit 125
    directory=$(pwd -P)
}

# serve NAME DIRECTORY CACHE : a file server for QEMU's next start; it ends with QEMU.
serve() {
    setpriv --pdeathsig TERM /usr/lib/qemu/virtiofsd --socket-path="$work/$1.sock" -o source="$2" -o cache="$3" \
        -o sandbox=chroot -f >"$work/$1.log" 2>&1 &
    children+=($!)
    local tries
    for ((tries = 0; tries < 500; tries++)); do
        [ ! -S "$work/$1.sock" ] || return 0
        kill -0 $! 2>/dev/null || break
        sleep 0.01
    done
    cat "$work/$1.log" >&2
    broken "no file server for $2"
}

share() { echo "-chardev socket,id=$1,path=$work/$1.sock -device vhost-user-fs-pci,chardev=$1,tag=$1,queue-size=1024"; }

port() { echo "-chardev file,id=$1,path=$2,append=on -device virtserialport,chardev=$1,name=lab.$1"; }

# Without XSAVE, as QEMU 7.2 does not intercept XSETBV: KVM would restore an XCR0 that its guest did not set, and the
# guest's processes would lose vector registers to each other. Without what costs an emulated processor a fifth of its
# time: page tables of five levels, a change of flags at each copy from user space, copies byte by byte.
processor=max,+svm,+npt,-xsave,-la57,-smap,-smep,-umip,-pku,-erms,-fsrm
start_machine() {
    local shares
    # What is slow only under emulation: zeroing pages twice, waiting for RCU; random addresses have all code translated anew.
    local kernel_arguments="console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on tsc=reliable no_timer_check
        apparmor=0 audit=0 init_on_alloc=0 randomize_kstack_offset=off rcupdate.rcu_expedited=1 cryptomgr.notests norandmaps
        nmi_watchdog=0 watchdog_thresh=60 softlockup_panic=1 lab.job=$work lab.modules=$image/modules"
    rm -f "$work"/{disk,status,root.sock,writable.sock}
    serve root / always
    shares=$(share root)
    if [ -n "$out" ]; then
        serve writable "$out" auto
        shares+=" $(share writable)"
    fi
    # The disk's blocks are taken from the host when they are written, and given back when they are discarded.
    truncate -s 16G "$work/disk"
    mkfs.ext4 -q -F -O ^has_journal -m 0 "$work/disk" || broken "cannot make the disk"
    # shellcheck disable=SC2046,SC2086
    setpriv --pdeathsig TERM timeout --foreground -k 5 "$limit" qemu-system-x86_64 \
        -M q35,memory-backend=memory -accel tcg,thread=multi -cpu "$processor" -smp "$cpus" -m "$memory" \
        -object memory-backend-memfd,id=memory,size="${memory}M",share=on \
        -nodefaults -no-user-config -display none -no-reboot -monitor none -serial "file:$work/console" \
        -kernel "$image/vmlinux" -initrd "$image/initramfs-qemu" -append "${kernel_arguments//$'\n'/ }" $shares \
        -drive "if=none,id=disk,file=$work/disk,format=raw,cache=unsafe,discard=unmap" -device virtio-blk-pci,drive=disk \
        -device virtio-serial-pci -add-fd fd=5,set=1 $(port stdout /dev/fdset/1) \
        -add-fd fd=6,set=2 $(port stderr /dev/fdset/2) $(port status "$work/status") </dev/null >"$work/log" 2>&1 &
    machine=$!
    children+=("$machine")
}

# An emulated machine hangs while it starts once in a long while; until the command runs nothing is lost by a new one.
start() {
    local tries
    start_machine
    for ((tries = 1; tries < 3; tries++)); do
        if wait_until_up 90; then break; fi
        echo "lab: not up after 90 s, starting again; the console's end:" >&2
        tail -n 5 "$work/console" >&2 || true
        kill "$machine" || true
        wait "$machine" || true
        ! is_up || broken "the lab came up late and was ended"
        children=()
        start_machine
    done
}

show_log() { grep -v 'warning: TCG' "$work/log" >&2 || true; }
