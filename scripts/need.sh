# need PACKAGE… : installs the Debian packages that are missing, and nothing when all are there.
# refresh_package_lists : apt-get update.
# To be sourced: . "$(dirname "$0")/need.sh"
# Set MARTLET_NO_INSTALL=1 to get an error that names the packages instead.

# apt-get as root, quietly; what it says is shown only when it fails.
_apt() {
    local sudo=() log
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "run as root: apt-get $*" >&2; return 1; }
        sudo=(sudo)
    fi
    log=$(mktemp)
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 "$@" >"$log" 2>&1 ||
        { echo "apt-get $* failed:" >&2; tail -n 20 "$log" >&2; rm -f "$log"; return 1; }
    rm -f "$log"
}

# apt gives the lists the archive's times; the directory they arrive in has the time of the last update.
_lists_are_fresh() {
    ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 &&
        [ -n "$(find /var/lib/apt/lists/partial -maxdepth 0 -mmin -1440 2>/dev/null)" ]
}

refresh_package_lists() { _apt update; }

need() {
    local package missing=()
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "${MARTLET_NO_INSTALL:-}" = 1 ]; then
        echo "these Debian packages are missing: ${missing[*]}" >&2
        return 1
    fi
    echo "installing ${missing[*]}" >&2
    # Lists that are missing or older than a day may name versions that the archive no longer has.
    _lists_are_fresh || refresh_package_lists || return 1
    _apt install -y --no-install-recommends "${missing[@]}"
}
