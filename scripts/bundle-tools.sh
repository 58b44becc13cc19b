#!/bin/bash
# bundle-tools.sh : fetches programs that make bundles, without installing them, and prints the directory of the programs: umoci
# and crun of this Debian, and `generate`, which writes what `oci-runtime-tool generate` does without options: that program is in
# no package, but the library which does its work is. What can't be had is said and left out.
set -euo pipefail
cd "$(dirname "$0")"
result=${MARTLET_CACHE:-$HOME/.cache/martlet}/bundle-tools
# The library, and what it imports.
sources=(
    golang-github-opencontainers-runtime-tools-dev golang-github-blang-semver-dev golang-github-cpuguy83-go-md2man-v2-dev
    golang-github-hashicorp-errwrap-dev golang-github-hashicorp-go-multierror-dev golang-github-mrunalp-fileutils-dev
    golang-github-opencontainers-selinux-dev golang-github-opencontainers-specs-dev golang-github-russross-blackfriday-v2-dev
    golang-github-satori-go.uuid-dev golang-github-shurcool-sanitized-anchor-name-dev golang-github-sirupsen-logrus-dev
    golang-github-urfave-cli-dev golang-github-xeipuuv-gojsonpointer-dev golang-github-xeipuuv-gojsonreference-dev
    golang-github-xeipuuv-gojsonschema-dev golang-gocapability-dev golang-golang-x-sys-dev
)

get() {
    local directory go work
    case $1 in
    umoci)
        directory=$(./debian-program.sh bookworm umoci)
        ln -sfn "$directory/usr/bin/umoci" "$result/umoci"
        ;;
    crun)
        directory=$(./debian-program.sh bookworm crun libyajl2)
        printf '#!/bin/sh\nLD_LIBRARY_PATH=%s/usr/lib/x86_64-linux-gnu exec %s/usr/bin/crun "$@"\n' \
            "$directory" "$directory" >"$result/crun"
        chmod 755 "$result/crun"
        ;;
    generate)
        go=$(./debian-program.sh trixie golang-1.24-go golang-1.24-src)/usr/lib/go-1.24
        directory=$(./debian-program.sh bookworm "${sources[@]}")
        work=$(mktemp -d)
        # Expanded now: at the end it is out of scope.
        # shellcheck disable=SC2064
        trap "rm -rf '$work'" EXIT
        cat >"$work/main.go" <<'GO'
package main

import (
	"os"

	"github.com/opencontainers/runtime-tools/generate"
)

func main() {
	generator, err := generate.New("linux")
	if err == nil {
		err = generator.Save(os.Stdout, generate.ExportOptions{})
	}
	if err != nil {
		panic(err)
	}
}
GO
        GOROOT=$go GOPATH=$directory/usr/share/gocode GO111MODULE=off GOCACHE=$work/cache CGO_ENABLED=0 \
            "$go/bin/go" build -o "$result/generate" "$work/main.go"
        ;;
    esac
}

mkdir -p "$result"
if [ $# -gt 0 ]; then
    get "$1"
    exit
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for program in umoci crun generate; do
    # A process of its own, which a failure ends.
    [ -e "$result/$program" ] || timeout 600 ./bundle-tools.sh $program 2>"$log" ||
        echo "bundle-tools: $program can't be had: $(grep -v '^$' "$log" | tail -n 1)" >&2
done
echo "$result"
