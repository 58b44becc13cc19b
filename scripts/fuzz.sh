#!/bin/bash
# fuzz.sh [NAME…] : runs the fuzz targets of Tests/Fuzz in turn, TIME seconds each (60 if not set), and prints one line of
# result for each. NAME: only these. Each starts from Tests/Fuzz/Corpora/NAME; what it finds is kept in .build/fuzz/corpora.
# A crash's input and log are kept in .build/fuzz/crashes/NAME. With MERGE=1 the corpora of the tree are made anew from all that
# was found: the smallest inputs that reach the same, 180 KB and 300 files of each target at most.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${TIME:-60}
out=.build/fuzz
devices=(rings fuse vsock registers vhost-user control netlink kernel snapshot file-state archive)
server=(ttrpc agent bundle toml)
limit=180000 most=300

program() { if [[ " ${server[*]} " == *" $1 "* ]]; then echo FuzzServer; else echo FuzzDevices; fi; }

# run NAME ARGUMENT… : libFuzzer's program with that target. Leaks are what a process keeps until its end.
run() {
    local name=$1
    shift
    ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0 MARTLET_FUZZ=$name \
        "$out/release/$(program "$name")" -max_len=4096 -detect_leaks=0 -artifact_prefix="$out/crashes/$name/" "$@"
}

fuzz() {
    local name=$1 log=$out/crashes/$1/log corpus=$out/corpora/$1 crashes=0
    mkdir -p "$corpus" "Tests/Fuzz/Corpora/$name" "$out/crashes/$name"
    rm -f "$out/crashes/$name"/*
    run "$name" -max_total_time="$time" -print_final_stats=1 "$corpus" "Tests/Fuzz/Corpora/$name" >"$log" 2>&1 || crashes=1
    local executions coverage
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 || true)
    echo "fuzz $name: ${executions:-0} executions, coverage ${coverage#cov: }, $crashes crashes"
    [[ $crashes == 0 ]] && return
    grep -m 5 -E 'Fatal error|runtime failure|Assertion|ERROR:' "$log" || tail -n 20 "$log"
    echo "fuzz $name: see $log"
    return 1
}

merge() {
    local name=$1 corpus=Tests/Fuzz/Corpora/$1 new total step size=0 count file
    new=$(mktemp -d)
    mkdir -p "$corpus" "$out/corpora/$name" "$out/crashes/$name"
    run "$name" -set_cover_merge=1 "$new" "$corpus" "$out/corpora/$name" >"$out/crashes/$name/log" 2>&1
    rm -f "$corpus"/*
    # Of all sizes where there are too many.
    total=$(find "$new" -type f | wc -l)
    step=$(((total + most - 1) / most))
    while read -r count file; do
        size=$((size + count))
        if ((size > limit)); then break; fi
        cp "$file" "$corpus/$(basename "$file" | cut -c 1-12)"
    done < <(find "$new" -type f -printf '%s %p\n' | sort -n | awk "NR % ${step:-1} == 0")
    echo "fuzz $name: $(find "$corpus" -type f | wc -l) inputs of $(find "$new" -type f | wc -l) kept"
    rm -rf "$new"
}

names=("$@")
if [[ ${#names[@]} == 0 ]]; then names=("${devices[@]}" "${server[@]}"); fi
for name in "${names[@]}"; do
    if [[ " ${devices[*]} ${server[*]} " != *" $name "* ]]; then
        echo "fuzz $name: there is no such target; those that there are: ${devices[*]} ${server[*]}" >&2
        exit 1
    fi
done
scripts/fuzz-build.sh
failed=0
for name in "${names[@]}"; do
    if [[ ${MERGE:-} == 1 ]]; then merge "$name"; else fuzz "$name" || failed=1; fi
done
exit "$failed"
