# The lab's engine bochs: Bochs emulates one processor, of Intel with VMX or of AMD with SVM; the root is a small one
# (lab-root.sh), on a disk whose changes are dropped. To be sourced by lab.sh, which says what the functions and variables
# mean.

default_memory=1024 default_cpus=1 engine_name=Bochs

prepare() {
    local models
    [ -z "$out" ] || broken "-o needs --engine qemu"
    # Bochs's own fault, docs/lab.md.
    [ "$cpus" = 1 ] || broken "Bochs has one processor: with more, its guests panic"
    model=${model:-corei7_haswell_4770}
    need bochs bochsbios vgabios isolinux syslinux-common xorriso >&2 || exit 125
    # It is printed on stderr, with exit status 1.
    models=$(bochs --help cpu 2>&1 || true)
    grep -qx "$model" <<<"$models" || broken "no processor model $model (bochs --help cpu)"
    image=$("$here/lab-image.sh") || exit 125
    root=$("$here/lab-root.sh" "${added[@]}") || exit 125
    directory=$(dirname "$here")
}

# Why these, docs/lab.md.
kernel_arguments="console=ttyS0,115200 quiet panic=-1 reboot=triple mitigations=off random.trust_cpu=on tsc=reliable no_timer_check
    apparmor=0 audit=0 nokaslr norandmaps cryptomgr.notests rcupdate.rcu_expedited=1"

# Everything that the BIOS loads: the kernel, its initial file system, and the job.
make_iso() {
    local name
    {
        for name in arguments environment directory; do echo "file /job/$name 0644 $work/$name"; done
    } | python3 "$here/cpio.py" >"$work/job.cpio"
    mkdir "$work/iso"
    ln -s "$image/vmlinuz" "$work/iso/vmlinuz"
    ln -s "$image/initramfs-bochs" "$work/iso/initrd"
    ln -s "$work/job.cpio" "$work/iso/job"
    ln -s /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$work/iso/"
    printf '%s\n' 'DEFAULT lab' 'PROMPT 0' 'LABEL lab' 'KERNEL /vmlinuz' 'INITRD /initrd,/job' \
        "APPEND ${kernel_arguments//$'\n'/ }" >"$work/iso/isolinux.cfg"
    xorriso -as mkisofs -quiet -follow-links -f -o "$work/lab.iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 \
        -boot-info-table "$work/iso" 2>"$work/log" || { cat "$work/log" >&2; broken "cannot make the ISO image"; }
}

configure() {
    local size cylinders
    size=$(stat -c %s "$root")
    cylinders=$((size / (16 * 63 * 512)))
    cat >"$work/bochsrc" <<BOCHSRC
display_library: rfb, options="timeout=0"
memory: guest=$memory, host=$memory
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
cpu: model=$model, count=1, ips=50000000, reset_on_triple_fault=0, ignore_bad_msrs=1
pci: enabled=1, chipset=i440fx
clock: sync=none, time0=local, rtc_sync=0
ata0-master: type=disk, mode=volatile, path=$root, journal=$work/changes, cylinders=$cylinders, heads=16, spt=63
ata1-master: type=cdrom, path=$work/lab.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/console
plugin_ctrl: speaker=0
port_e9_hack: enabled=1
log: $work/log
logprefix: %t%e%d
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
BOCHSRC
    # Debian's has the debugger, which waits for this.
    echo c >"$work/debugger"
}
start() {
    local decoder
    make_iso
    configure
    mkfifo "$work/output"
    # Its display is a VNC server, in a network of its own that has no interface.
    setpriv --pdeathsig TERM timeout --foreground -k 5 "$limit" unshare -n bochs -f "$work/bochsrc" -rc "$work/debugger" \
        </dev/null >"$work/output" 2>"$work/errors" &
    machine=$!
    children+=("$machine")
    python3 "$here/lab/decode.py" "$work/status" <"$work/output" >&5 2>&6 &
    decoder=$!
    children+=("$decoder")
    # Its end is the command's, or Bochs's.
    wait "$decoder" || true
    kill "$machine" 2>/dev/null || true
}

# Without what Bochs says of its plugins at each start.
show_log() { grep -h -v '^0*i\[' "$work/errors" "$work/log" >&2 || true; }
