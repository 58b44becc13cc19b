#!/bin/bash
# kubernetes-install-check.sh NODE : tries configs/kubernetes/install.yaml and uninstall.yaml on a node of a cluster for tests: Martlet is
# put there, once more, and taken away, while a pod of the cluster's default runtime runs. Prints a line for each check.
#   KUBECTL            how kubectl is called (kubectl)
#   NODE_IMAGE         the name of `make image`'s image in a registry that the node reaches, or in its containerd (martlet-node)
#   IMAGE              an image with busybox's programs (busybox)
#   CONTAINERD_CONFIG, RESTART   for install.yaml, where the node is not as usual
# On the node itself, as root, it also looks at its files, and whether containerd was restarted (CONTAINERD: a command that prints its pid).
set -uo pipefail
cd "$(dirname "$0")/.."
node=${1:?name a node}
kubectl=${KUBECTL:-kubectl} image=${IMAGE:-busybox} node_image=${NODE_IMAGE:-martlet-node}
config=${CONTAINERD_CONFIG:-/etc/containerd/config.toml} restart=${RESTART:-systemctl restart containerd}
space=martlet-install-check-$$ failed=0 passed=0

k() { timeout -s KILL "${limit:-60}" $kubectl "$@"; }
ok() { passed=$((passed + 1)) && echo "ok      $1 (${SECONDS} s)"; }
bad() { failed=$((failed + 1)) && echo "FAILED  $1: ${2:-}" | head -c 1500 && echo; }
check() {
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then ok "$name"; else bad "$name" "$said"; fi
}
same() { if [[ $2 == "$3" ]]; then ok "$1"; else bad "$1" "wanted '$2', found '$3'"; fi; }
await() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do ((SECONDS < end)) || return 1; sleep 1; done
}
manifest() {
    sed "s|image: martlet-node\$|image: $node_image|; s|value: /etc/containerd/config.toml|value: $config|; s|value: systemctl .*}|value: \"$restart\"}|" \
        "configs/kubernetes/$1.yaml"
}
is_there() { [[ $(id -u) == 0 && $(hostname) == "$node" || -n ${CONTAINERD:-} ]]; }
containerd() { if [[ -n ${CONTAINERD:-} ]]; then sh -c "$CONTAINERD"; else pidof -s containerd; fi; }
clean_up() {
    manifest install | limit=30 k delete --ignore-not-found --wait=false -f - >/dev/null 2>&1
    manifest uninstall | limit=30 k delete --ignore-not-found --wait=false -f - >/dev/null 2>&1
    k delete --ignore-not-found --wait=false -f configs/kubernetes/runtimeclass.yaml >/dev/null 2>&1
    k label node "$node" martlet.io/runtime- >/dev/null 2>&1
    k delete namespace "$space" --wait=false >/dev/null 2>&1
}
trap clean_up EXIT

# pod NAME [FIELD] : a pod that counts.
pod() {
    k apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: $1, namespace: $space}
spec:
  ${2:-}
  nodeName: $node
  terminationGracePeriodSeconds: 1
  containers:
  - {name: any, image: $image, imagePullPolicy: IfNotPresent, command: [sh, -c, "n=0; while :; do n=\$((n + 1)); echo \$n >/tmp/n; sleep 0.2; done"]}
YAML
}
counts() { k -n "$space" exec "$1" -- cat /tmp/n; }
boot() { k -n "$space" exec "$1" -- cat /proc/sys/kernel/random/boot_id; }
started() { k -n "$space" get pod "$1" -o 'jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].state.running.startedAt} {.status.containerStatuses[0].containerID}'; }
said() { k -n kube-system logs -l "app.kubernetes.io/name=martlet-$1" -c "${2:-install}" --tail=-1; }
rolled() { limit=260 k -n kube-system rollout status "daemonset/martlet-$1" --timeout=250s; }
apply() { manifest "$1" | k apply -f -; }

k create namespace "$space" >/dev/null || exit 1
pod plain
check "a pod of the default runtime runs" await 90 counts plain
plain=$(started plain)

### install

check "the node is labelled" k label node "$node" martlet.io/runtime=true --overwrite
check "the class is made" k apply -f configs/kubernetes/runtimeclass.yaml
check "install.yaml is applied" apply install
check "the node is done" rolled node
check "containerd has the runtime" grep -q "the runtime martlet: added" <(said node)
if is_there; then
    check "the shim is on the node" test -x /opt/martlet/bin/containerd-shim-martlet-v2
    before=$(containerd)
fi
pod machine "runtimeClassName: martlet"
check "a pod of the class martlet runs" await 180 counts machine
other_kernel() { local own; own=$(boot machine) && [[ -n $own && $own != "$(boot plain)" ]]; }
check "on a kernel of its own" other_kernel
machine=$(started machine)

### once more

k -n kube-system rollout restart daemonset/martlet-node >/dev/null
check "a second time" rolled node
await 30 grep -q unchanged <(said node)
same "changes no file, nor the configuration" 2 "$(said node | grep -c unchanged)"
if is_there; then same "containerd was not restarted" "$before" "$(containerd)"; fi
same "the pod of the class goes on" "$machine" "$(started machine)"

### deletion, and removal

check "install.yaml is deleted" bash -c "$(declare -f manifest k); $(declare -p kubectl node_image config restart); manifest install | limit=90 k delete -f -"
check "the pod of the class goes on without it" counts machine
check "uninstall.yaml is applied" apply uninstall
waits() { said uninstall uninstall | grep -q waiting; }
check "it waits for the pods of the class" await 60 waits
same "which go on" "$machine" "$(started machine)"
check "and answer" counts machine
check "the class is deleted" k delete -f configs/kubernetes/runtimeclass.yaml
check "the pod of the class is deleted" env timeout 120 $kubectl -n "$space" delete pod machine --timeout=100s
check "the node is done" rolled uninstall
check "containerd has the runtime no more" grep -q "the runtime martlet: removed" <(said uninstall uninstall)
if is_there; then
    check "no file is left" test ! -e /opt/martlet
    check "no state is left" test ! -e /run/martlet -a ! -e /run/martlet.users -a ! -e /run/martlet.ends -a ! -e /var/lib/martlet
    check "nor a line in the configuration" test "$(grep -c martlet "$config")" = 0
fi
k -n kube-system rollout restart daemonset/martlet-uninstall >/dev/null
check "a second removal" rolled uninstall
gone() { said uninstall uninstall | grep -q "is not there"; }
check "finds nothing" await 30 gone
first=$(counts plain)
same "the pod of the default runtime was never restarted" "$plain" "$(started plain)"
sleep 2
check "and goes on" test "$(counts plain)" -gt "$first"
echo "$passed of $((passed + failed)) passed"
exit $((failed > 0))
