#!/bin/sh
# martlet-containerd-setup: makes Martlet a runtime of containerd's CRI plugin, for the RuntimeClass handler `martlet`, and takes
# it away again. Twice is as good as once.
set -eu
export LC_ALL=C

usage() {
    cat <<'TEXT'
usage: martlet-containerd-setup add|remove|status [--config FILE] [--restart COMMAND]

  add     adds the runtime martlet, unless it is there
  remove  takes away what `add` has added, and nothing else
  status  prints where the runtime is configured; exit code 1: nowhere

  --config FILE      containerd's configuration (/etc/containerd/config.toml)
  --restart COMMAND  is run by sh when the configuration has changed, e.g. 'systemctl restart containerd'

Where containerd imports conf.d/*.toml beside FILE and merges it (2.0 and later), the runtime is in conf.d/martlet.toml. Elsewhere it is a marked block at the end of FILE. The result is read with `containerd config dump` before it
takes effect: nothing but the runtime may have changed.
TEXT
}
die() { echo "martlet-containerd-setup: $*" >&2; exit 1; }

action=${1:-} config=/etc/containerd/config.toml restart=
case $action in
    add | remove | status) shift ;;
    -h | --help) usage; exit ;;
    *) usage >&2; exit 2 ;;
esac
while [ $# -gt 0 ]; do
    case $1 in
        --config) config=${2:?--config names no file} ;;
        --restart) restart=${2:?--restart names no command} ;;
        *) usage >&2; exit 2 ;;
    esac
    shift 2
done
[ ! -e "$config" ] || config=$(readlink -f "$config")
drop_in=$(dirname "$config")/conf.d/martlet.toml
new=$config.martlet-new
first='# >>> martlet-containerd-setup >>>' last='# <<< martlet-containerd-setup <<<'
prefix=$(dirname "$(dirname "$(readlink -f "$0")")")
work=$(mktemp -d)
clean_up() {
    # A drop-in that was set aside comes back, unless there is a new one.
    if [ -e "$work/had" ] && [ ! -e "$drop_in" ]; then mv "$work/had" "$drop_in"; fi
    rm -rf "$work" "$new"
}
trap clean_up EXIT

# Where the runtime is: the file that has our mark.
found() {
    for file in "$drop_in" "$config"; do
        if grep -qxF "$first" "$file" 2>/dev/null; then echo "$file"; return; fi
    done
}

# The table of the runtime, in the format of this version of containerd's configuration: 2 or 3.
table() {
    shim=$prefix/bin/containerd-shim-martlet-v2 type=io.containerd.martlet.v2
    # What is not in containerd's own PATH is named. Before 1.7 there is no runtime_path, but the type may be a path.
    case $prefix in
        /usr | /usr/local) shim= ;;
        *) if [ "$major" = 1 ] && [ "$minor" -lt 7 ]; then type=$shim shim=; fi ;;
    esac
    sed "/^#/d; /^version/d; /^\$/d; s|\"io.containerd.martlet.v2\"|\"$type\"|" "$prefix/share/martlet/containerd/config-$(($1 - 1)).toml"
    [ -z "$shim" ] || echo "  runtime_path = \"$shim\""
}

# What containerd 1 would forget: there the first runtime in a file takes the place of all that it has by itself, runc among them.
own_runtimes() {
    if [ "$major" -ge 2 ] || grep -q 'containerd\.runtimes' "$work/config.toml"; then return; fi
    awk '/^ *\[/ {kept = /\.containerd\.runtimes\./} kept' "$work/before"
}

# without FILE : the file without our block.
without() { awk -v first="$first" -v last="$last" '$0 == first {out = 1} !out {print} $0 == last {out = 0}' "$1"; }

# dump FILE OUTPUT : what containerd makes of a configuration. The names of the files that it was read from do not count.
dump() {
    containerd --config "$1" config dump >"$work/dump" 2>"$work/errors" || return 1
    grep -v '^ *imports = ' "$work/dump" >"$2"
}

# The version of the format of a file: 0 where it names none, empty where it has no setting at all.
format() {
    grep -q '^[[:space:]]*[^#[:space:]]' "$1" 2>/dev/null || return 0
    awk '/^[[:space:]]*\[/ {exit} /^[[:space:]]*version[[:space:]]*=/ {sub(/.*=[[:space:]]*/, ""); print $1 + 0; named = 1; exit}
        END {if (!named) print 0}' "$1"
}

# verify FILE : dies where the configuration with the runtime does not have all that it had without.
verify() {
    dump "$1" "$work/after" || die "containerd can't read $config with the runtime martlet: $(tail -n 1 "$work/errors")"
    awk 'NR == FNR {left[$0]++; next} left[$0]-- <= 0 {print}' "$work/after" "$work/before" >"$work/lost"
    [ ! -s "$work/lost" ] || die "other settings of $config would change: $(head -n 1 "$work/lost")"
    grep -q 'runtimes\.martlet\]' "$work/after" || die "containerd does not see the runtime martlet in $config"
}

# The file as it would be without the runtime, and what containerd makes of it, in `before`.
read_before() {
    if [ -e "$config" ]; then without "$config" >"$work/config.toml"; else : >"$work/config.toml"; fi
    # "MAJOR MINOR".
    numbers=$(containerd --version 2>/dev/null | sed -n 's/.* v\{0,1\}\([0-9][0-9]*\)\.\([0-9][0-9]*\)\..*/\1 \2/p')
    [ -n "$numbers" ] || die "containerd is not there, or does not tell its version"
    major=${numbers% *} minor=${numbers#* }
    format=$(format "$work/config.toml") names=
    if [ -z "$format" ]; then
        # containerd's defaults, in its newest format.
        if [ "$major" -ge 2 ]; then format=3; else format=2; fi
        names="version = $format"
    fi
    case $format in
        2 | 3) ;;
        *) die "$config is in version $format of containerd's format: 2 and 3 can be changed" ;;
    esac
    # Imports are relative to the file.
    { [ -z "$names" ] || echo "$names"; cat "$work/config.toml"; } >"$new"
    dump "$new" "$work/before" || die "containerd can't read $config: $(tail -n 1 "$work/errors")"
}

# Writes the drop-in, and takes it away again where containerd does not import it.
add_drop_in() {
    mkdir -p "$(dirname "$drop_in")"
    { echo "$first"; echo 'version = 3'; echo; table 3; echo "$last"; } >"$drop_in"
    (verify "$new") 2>/dev/null || { remove_drop_in; return 1; }
}
remove_drop_in() {
    rm -f "$drop_in"
    rmdir "$(dirname "$drop_in")" 2>/dev/null || true
}

# Puts a file in the configuration's place, with its owner and mode.
replace() {
    if [ -e "$config" ]; then cp -p "$config" "$new"; else rm -f "$new"; fi
    cat "$1" >"$new"
    mv "$new" "$config"
}

add() {
    mkdir -p "$(dirname "$config")"
    # What is there of ours is made anew. It is set aside for now, so that it is not imported.
    if grep -qxF "$first" "$drop_in" 2>/dev/null; then mv "$drop_in" "$work/had"; fi
    read_before
    if grep -q 'runtimes\.martlet\]' "$work/before"; then
        echo "the runtime martlet is there already, by other means than this program"
        return
    fi
    if [ "$major" -ge 2 ] && add_drop_in; then
        # A block of before containerd imported drop-ins.
        if grep -qxF "$first" "$config" 2>/dev/null; then replace "$work/config.toml"; fi
        if cmp -s "$work/had" "$drop_in"; then echo "$drop_in: unchanged"; return; fi
        changed "added to $drop_in"
        return
    fi
    { cat "$work/config.toml"; echo "$first"; [ -z "$names" ] || echo "$names"; own_runtimes; table "$format"; echo "$last"; } >"$work/wanted"
    cat "$work/wanted" >"$new"
    verify "$new"
    if cmp -s "$config" "$work/wanted"; then echo "$config: unchanged"; return; fi
    replace "$work/wanted"
    rm -f "$work/had"
    changed "added to $config"
}

remove() {
    file=$(found)
    if [ -z "$file" ]; then echo "the runtime martlet is not there"; return; fi
    if [ "$file" = "$drop_in" ]; then
        remove_drop_in
    else
        without "$config" >"$work/config.toml"
        if [ -s "$work/config.toml" ]; then replace "$work/config.toml"; else rm -f "$config"; fi
    fi
    changed "removed from $file"
}

changed() {
    echo "the runtime martlet: $1"
    if [ -n "$restart" ]; then sh -c "$restart"; else echo "restart containerd for it to take effect; its pods go on"; fi
}

case $action in
    add) add ;;
    remove) remove ;;
    status) file=$(found) && [ -n "$file" ] && echo "$file" ;;
esac
