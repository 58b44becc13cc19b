#!/bin/sh
# martlet-node install|remove : puts Martlet on the node whose containers this one is beside, or takes it away. Each is done once:
# a second time changes nothing. It drains nothing and ends no pod. It runs in the image of `make image`, privileged, with the
# node's file system at /host; see install.yaml and uninstall.yaml.
#   CONTAINERD_CONFIG  containerd's configuration on the node (/etc/containerd/config.toml)
#   RESTART            the command on the node that restarts containerd, when that file has changed
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
config=${CONTAINERD_CONFIG:-/etc/containerd/config.toml}
restart=${RESTART:-systemctl restart containerd}
directory=/opt/martlet
there=/host$directory
# The checksums of what was put there: what makes the directory ours.
list=.martlet-node

say() { echo "martlet-node: $*"; }
die() { say "$*" >&2; exit 1; }
# systemctl works in a chroot, too, where it is not told that it is in one.
on_node() { SYSTEMD_IGNORE_CHROOT=1 chroot /host "$@"; }

if [ -e "$there" ] && [ ! -e "$there/$list" ]; then die "$directory on the node was not made by this program: it is left alone"; fi

# In the order in which they are put there: the shim last.
files() { find share libexec sbin bin -type f; }

install() {
    cd "$directory"
    files | xargs sha256sum >"/tmp/$list"
    if cmp -s "/tmp/$list" "$there/$list" && (cd "$there" && sha256sum -c -s "$list"); then
        say "the files in $directory are unchanged"
    else
        mkdir -p "$there"
        touch "$there/$list"
        # A file that pods use is replaced, never written to: they go on with the one that they have.
        files | while read -r file; do
            mkdir -p "$there/${file%/*}"
            cp -p "$file" "$there/$file.new"
            mv "$there/$file.new" "$there/$file"
        done
        # What an earlier version had.
        while read -r _ file; do
            if [ ! -e "$file" ]; then rm -f "$there/$file"; fi
        done <"$there/$list"
        cp "/tmp/$list" "$there/$list.new"
        mv "$there/$list.new" "$there/$list"
        say "put $(wc -l <"/tmp/$list") files into $directory"
    fi
    on_node $directory/sbin/martlet-containerd-setup add --config "$config" --restart "$restart"
}

# The pods of Martlet that run on the node. An installation that was cut short has none.
pods() {
    [ -x "$there/bin/martlet" ] || return 0
    all=$(on_node $directory/bin/martlet pod list) || return 1
    echo "$all" | awk '$3 == "running" {print $1}'
}

remove() {
    if [ ! -e "$there" ]; then
        say "$directory is not there"
        return
    fi
    said=
    while :; do
        running=$(pods) || die "martlet pod list fails: nothing is removed"
        [ -n "$running" ] || break
        # shellcheck disable=SC2086  # in one line
        if [ "$running" != "$said" ]; then say "waiting until these pods of Martlet have ended:" $running; fi
        said=$running
        sleep 2
    done
    [ ! -x "$there/sbin/martlet-containerd-setup" ] ||
        on_node $directory/sbin/martlet-containerd-setup remove --config "$config" --restart "$restart"
    rm -rf "$there"
    on_node rm -rf /run/martlet /run/martlet.users /run/martlet.ends /var/lib/martlet
    say "removed $directory"
}

case ${1:-} in
    install) install ;;
    remove) remove ;;
    *) die "say install or remove" ;;
esac
