#!/bin/bash
# fuzz-build.sh: builds the programs of Tests/Fuzz, optimized, with libFuzzer and the address sanitizer, into .build/fuzz.
# SwiftPM's own --sanitize does it for the C sources, and lets a program be without `main`. Of two of them the Swift compiler
# sees the last one only, so it is told of both at once. What is printed is an error, or nothing: the linker's warnings about the
# sanitizer's own symbols are of no use.
set -euo pipefail
cd "$(dirname "$0")/.."
options=(--package-path Tests/Fuzz --scratch-path .build/fuzz -c release
    --sanitize=fuzzer --sanitize=address -Xswiftc -sanitize=fuzzer,address -Xswiftc -enable-testing)
mkdir -p .build/fuzz
# The versions of the main package.
if [[ -f Package.resolved ]]; then cp Package.resolved Tests/Fuzz/Package.resolved; fi
for product in FuzzDevices FuzzServer; do
    if ! "${SWIFT:-swift}" build "${options[@]}" --product "$product" >.build/fuzz/build.log 2>&1; then
        grep -E 'error' .build/fuzz/build.log || tail -n 40 .build/fuzz/build.log
        exit 1
    fi
done
