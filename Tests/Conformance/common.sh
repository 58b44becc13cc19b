# What the conformance scripts share; to be sourced with the variables checkout, runtime and list set.

# A root file system at $1: busybox, which must be static, under the names of its applets.
busybox_root() {
    mkdir -p "$1"/{bin,sbin,usr/bin,usr/sbin,dev,etc,proc,sys,tmp,root,var/tmp}
    cp "$(command -v busybox)" "$1/bin/busybox"
    local applet
    for applet in $(busybox --list); do
        [ -e "$1/bin/$applet" ] || ln -s busybox "$1/bin/$applet"
    done
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' >"$1/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$1/etc/group"
    chmod 1777 "$1/tmp"
}

# Ends with the names of the programs that are missing.
need_programs() {
    local program missing=()
    for program in "$@"; do command -v "$program" >/dev/null || missing+=("$program"); done
    [ ${#missing[@]} = 0 ] || { echo "missing programs: ${missing[*]} (packages bats, jq, gawk, busybox-static, xz-utils)" >&2; exit 2; }
}

# Deletes the containers below the state directories in $work, then ends what still runs there: a test that ran out of
# time ends without its own clean-up.
clear_left() {
    local state container process
    while read -r state; do
        for container in "$state"/*/; do
            [ -d "$container" ] || continue
            timeout 20 "$runtime" --root "$state" delete -f "$(basename "$container")" >/dev/null 2>&1 || true
        done
    done < <(find "$work" -type d -name state -path '*/runc.*' 2>/dev/null)
    for process in /proc/[0-9]*; do
        process=${process#/proc/}
        [ "$process" = $$ ] || [ "$process" = "$BASHPID" ] && continue
        if tr '\0' ' ' 2>/dev/null <"/proc/$process/cmdline" | grep -qF "$work/"; then
            kill -9 "$process" 2>/dev/null || true
        fi
    done
    # The deepest mounts first.
    awk -v work="$work/" 'index($5, work) == 1 {print $5}' /proc/self/mountinfo | sort -r | while read -r mount; do
        umount -l "$mount" 2>/dev/null || true
    done
}

# Prints the totals of the list, and with BASELINE how many of those that passed there, in files that were run here, passed.
totals() {
    awk -F'\t' '{n[$1]++} END {printf "%d passed, %d failed, %d skipped\n", n["pass"], n["fail"], n["skip"]}' "$list"
    [ -n "${BASELINE:-}" ] || return 0
    awk -F'\t' -v baseline="$BASELINE" '
        {test = $2 FS $3}
        FILENAME != baseline {ran[$2]; if ($1 == "pass") passed[test]; next}
        $1 == "pass" && $2 in ran {all++; if (test in passed) n++}
        END {printf "%d of the %d that passed in %s\n", n, all, baseline}' "$list" "$BASELINE"
}
