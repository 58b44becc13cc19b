#!/bin/bash
# kubernetes-check.sh : tries Martlet's RuntimeClass on a cluster, by what its users do: a Deployment, probes, exec, logs, cp,
# attach, port-forward, addresses, a ConfigMap's update, stats, OOM, refusals, a rolling update, deletion. All in a
# namespace of its own, which is gone in the end. Prints a line for each, and fails when one of them fails.
#   KUBECTL  how kubectl is called (kubectl)      CLASS  the RuntimeClass (martlet)
#   OTHER    a class of runc's (none: the cluster's default)
#   IMAGE    an image with busybox's programs (busybox)
#   FAULTY   set where the pods' guest is the one whose agent has faults on request: a crash of it is tried too
# On the node itself, as root with martlet in PATH, it also kills a pod's processes, and looks at what is left in the end.
set -uo pipefail
kubectl=${KUBECTL:-kubectl} class=${CLASS:-martlet} other=${OTHER:-} image=${IMAGE:-busybox}
space=martlet-check-$$ work=$(mktemp -d) failed=0 passed=0

k() { timeout -s KILL "${limit:-60}" $kubectl -n "$space" "$@"; }
ok() { passed=$((passed + 1)) && echo "ok      $1 (${SECONDS} s)"; }
bad() { failed=$((failed + 1)) && echo "FAILED  $1: ${2:-}" | head -c 1500 && echo; }
# check NAME COMMAND… : the command must succeed.
check() {
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then ok "$name"; else bad "$name" "$said"; fi
}
# same NAME WANTED FOUND
same() { if [[ $2 == "$3" ]]; then ok "$1"; else bad "$1" "wanted '$2', found '$3'"; fi; }
# await SECONDS COMMAND… : until the command succeeds.
await() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do ((SECONDS < end)) || return 1; sleep 1; done
}
clean_up() {
    timeout -s KILL 90 $kubectl delete namespace "$space" --wait=false >/dev/null 2>&1
    rm -rf "$work"
}
trap clean_up EXIT

other_class=${other:+"runtimeClassName: $other"}
timeout -s KILL 60 $kubectl create namespace "$space" >/dev/null || exit 1
k apply -f - >/dev/null <<YAML || exit 1
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {key: one}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      runtimeClassName: $class
      terminationGracePeriodSeconds: 2
      volumes:
      - {name: settings, configMap: {name: settings}}
      - {name: shared, emptyDir: {}}
      - {name: fast, emptyDir: {medium: Memory, sizeLimit: 16Mi}}
      initContainers:
      - {name: first, image: $image, command: [sh, -c, "echo prepared >/shared/word"], volumeMounts: [{name: shared, mountPath: /shared}]}
      containers:
      - name: server
        image: $image
        command: [sh, -c, "echo serving; exec httpd -f -p 8080 -h /etc"]
        readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 2, timeoutSeconds: 5}
        livenessProbe: {exec: {command: ["true"]}, periodSeconds: 10, timeoutSeconds: 10}
        resources: {limits: {memory: 96Mi, cpu: 300m}}
        volumeMounts:
        - {name: settings, mountPath: /settings}
        - {name: shared, mountPath: /shared}
        - {name: fast, mountPath: /fast}
      - name: beside
        image: $image
        stdin: true
        command: [sh, -c, "inotifyd - /settings:y >/shared/events & cat; while :; do sleep 1; done"]
        volumeMounts:
        - {name: settings, mountPath: /settings}
        - {name: shared, mountPath: /shared}
---
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  $other_class
  terminationGracePeriodSeconds: 1
  containers:
  - {name: server, image: $image, command: [sh, -c, "echo plain >/tmp/name; exec httpd -f -p 8080 -h /tmp"]}
YAML

ready() { [[ $(k get deployment web -o 'jsonpath={.status.readyReplicas}') == 3 ]]; }
check "a Deployment of three pods with two containers each becomes ready" await 240 ready
mapfile -t pods < <(k get pods -l app=web -o 'jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}')
pod=${pods[0]:-none}
boot() { k exec "$1" -c "$2" -- cat /proc/sys/kernel/random/boot_id; }
same "the containers of a pod share a kernel" "$(boot "$pod" server)" "$(boot "$pod" beside)"
check "pods share none" [ "$(for each in "${pods[@]}"; do boot "$each" server; done | sort -u | wc -l)" = 3 ]
same "an init container came first" prepared "$(k exec "$pod" -c server -- cat /shared/word)"

k exec "$pod" -c server -- sh -c 'exit 7' >/dev/null 2>&1
same "exec answers the exit code" 7 $?
same "exec takes input" 4 "$(echo -n four | k exec -i "$pod" -c server -- wc -c)"
same "logs" serving "$(k logs "$pod" -c server)"
head -c 300000 /dev/urandom >"$work/file"
k cp "$work/file" "$pod:/tmp/file" -c server >/dev/null 2>&1 && k cp "$pod:/tmp/file" "$work/back" -c server >/dev/null 2>&1
check "cp there and back" cmp "$work/file" "$work/back"
attached() { echo "to the container" | limit=10 k attach -i "$pod" -c beside; k logs "$pod" -c beside | grep -q "to the container"; }
check "attach" attached

# descendant PID : the last process of the line of first children that begins with PID.
descendant() {
    local pid=$1 child
    # The file has no line end.
    while child=""; read -r child _ </proc/"$pid"/task/"$pid"/children || [[ -n $child ]]; do pid=$child; done
    echo "$pid"
}
forward() {
    local port=$((20000 + RANDOM % 20000)) forwarder code
    timeout -s KILL 40 $kubectl -n "$space" port-forward "$pod" "$port:8080" >"$work/forward" 2>&1 &
    forwarder=$!
    await 20 grep -q "Forwarding from" "$work/forward"
    ask() { "$@" bash -c "exec 3<>/dev/tcp/127.0.0.1/$port && printf 'GET /hostname HTTP/1.0\r\n\r\n' >&3 && cat <&3" | grep -q "$pod"; }
    # A cluster for tests may have its kubectl in a network of its own.
    ask timeout 10 || ask timeout 10 nsenter -t "$(descendant "$forwarder")" -n
    code=$?
    # timeout leads a process group of its own: kubectl and what wraps it.
    kill -KILL -- -"$forwarder"
    wait "$forwarder"
    return $code
}
check "port-forward" forward 2>/dev/null

address() { k get pod "$1" -o 'jsonpath={.status.podIP}'; }
get() { k exec "$1" -c server -- sh -c "printf 'GET /$3 HTTP/1.0\r\n\r\n' | nc -w 5 $2 8080" | tail -1; }
check "a pod of runc's is ready" await 60 k exec plain -- true
same "reached from a pod of runc's" "$pod" "$(get plain "$(address "$pod")" hostname)"
same "reaches a pod of runc's" plain "$(get "$pod" "$(address plain)" name)"
same "reaches another of its kind" "${pods[1]:-none}" "$(get "$pod" "$(address "${pods[1]:-none}")" hostname)"

check "a memory volume is the guest's own" k exec "$pod" -c server -- grep -q " /fast tmpfs " /proc/mounts

k exec "$pod" -c server -- dd if=/dev/zero of=/dev/shm/held bs=1M count=32 >/dev/null 2>&1
# Kubelet tells what it saw up to a quarter of a minute ago.
sleep 30
near() {
    local seen own
    seen=$($kubectl get --raw "/api/v1/nodes/$(k get pod "$pod" -o 'jsonpath={.spec.nodeName}')/proxy/stats/summary" | python3 -c "
import json, sys
for pod in json.load(sys.stdin)['pods']:
    if pod['podRef'] ['name'] == '$pod':
        print(next(c['memory']['workingSetBytes'] for c in pod['containers'] if c['name'] == 'server'))")
    own=$(k exec "$pod" -c server -- sh -c 'cd /sys/fs/cgroup/$(sed -n "s/^0:://p" /proc/self/cgroup) &&
        echo $(($(cat memory.current) - $(sed -n "s/^inactive_file //p" memory.stat)))')
    echo "kubelet says $seen, the container's group $own"
    ((seen * 10 > own * 9 && seen * 10 < own * 11))
}
check "kubelet's stats are those of the guest, within a tenth" near

k patch configmap settings -p '{"data":{"key":"two"}}' >/dev/null
updated() { [[ $(k exec "$pod" -c server -- cat /settings/key) == two ]]; }
check "a ConfigMap's update is seen" await 150 updated
woken() { k exec "$pod" -c server -- grep -q . /shared/events; }
if k exec "$pod" -c server -- sh -c 'command -v inotifyd' >/dev/null 2>&1; then
    check "and wakes who watches it" await 10 woken
else
    echo "skipped and wakes who watches it: the image has no inotifyd"
fi

k apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: hungry}
spec:
  runtimeClassName: $class
  terminationGracePeriodSeconds: 1
  containers:
  - name: eater
    image: $image
    command: [sh, -c, "sleep 2; exec dd if=/dev/zero of=/dev/null bs=48M count=1"]
    resources: {limits: {memory: 32Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: on-the-host}
spec: {runtimeClassName: $class, hostNetwork: true, terminationGracePeriodSeconds: 1, containers: [{name: any, image: $image, command: [sleep, "1000"]}]}
YAML
starved() {
    local at='{.status.containerStatuses[0]'
    [[ $(k get pod hungry -o "jsonpath=$at.lastState.terminated.reason} $at.restartCount}") == OOMKilled\ [1-9]* ]]
}
check "a container out of memory is OOMKilled, and starts again" await 90 starved
refused() { k describe pod on-the-host | grep -qi "host.*network\|network.*host"; }
check "hostNetwork is refused, by name" await 30 refused

# The struck pod's server: its own process, whose children are the others.
server() {
    local container id pid
    container=$(k get pod struck -o 'jsonpath={.status.containerStatuses[0].containerID}')
    martlet list | awk '$3 == "running" {print $1, $4}' | while read -r id pid; do
        if martlet ps "$id" 2>/dev/null | grep -q "^${container##*/} "; then echo "$pid"; fi
    done
}
anew() {
    local boot
    [[ $(k get pod struck -o 'jsonpath={.status.containerStatuses[0].ready}') == true ]] && boot=$(boot struck any) &&
        [[ -n $boot && $boot != "$old" ]]
}
# strike NAME [PATTERN] : kills a process of the pod's; kubelet has to make the pod ready again by its own means.
strike() {
    local pid began
    await 20 boot struck any
    pid=$(server)
    [[ -z ${2:-} || -z $pid ]] || pid=$(pgrep -P "$pid" -f "$2" | head -1)
    [[ -n $pid ]] || { bad "no $1 to kill"; return; }
    old=$(boot struck any) began=$SECONDS
    kill -9 "$pid"
    check "ready again after $1 was killed" await 200 anew
    echo "        after $((SECONDS - began)) s"
}
# struck_pod FIELD : makes the pod to strike; FIELD is one more of its container's.
struck_pod() {
    k apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: struck}
spec:
  runtimeClassName: $class
  terminationGracePeriodSeconds: 1
  containers:
  - name: any
    image: $image
    command: [sleep, "100000"]
    $1
YAML
}
is_node() { [[ $(id -u) == 0 ]] && command -v martlet >/dev/null; }
if is_node; then
    struck_pod 'readinessProbe: {exec: {command: ["true"]}, periodSeconds: 1, timeoutSeconds: 5}'
    old=none
    check "a pod to strike is ready" await 90 anew
    strike "the shim"
    strike "the machine" 'martlet-vmm|qemu-system'
    strike "the file device" 'martlet-device files'
    struck=$(server)
    check "a forced deletion" k delete pod struck --force --grace-period=0
    forgotten() { [[ -n $struck ]] && ! kill -0 "$struck" 2>/dev/null; }
    check "and its machine is gone" await 60 forgotten
    if [[ -n ${FAULTY:-} ]]; then
        k create configmap trouble --from-literal=fault=crash >/dev/null
        struck_pod 'env: [{name: io.martlet.fault, valueFrom: {configMapKeyRef: {name: trouble, key: fault, optional: true}}}]'
        crashed() { k describe pod struck | grep -q "guest crashed"; }
        check "an agent's crash is told" await 90 crashed
        k delete configmap trouble >/dev/null
        old=none
        check "ready when the agent crashes no more" await 300 anew
    fi
fi

k set env deployment/web ROUND=2 >/dev/null
check "a rolling update" env limit=240 timeout 240 $kubectl -n "$space" rollout status deployment/web --timeout=230s
check "deletion" env timeout -s KILL 150 $kubectl delete namespace "$space" --timeout=140s
if is_node; then
    nothing() { [[ $(martlet list | wc -l) == "$before" ]]; }
    before=${MARTLET_PODS_BEFORE:-1}
    check "the node has no pod of it any more" await 20 nothing
fi
echo "$passed of $((passed + failed)) passed"
exit $((failed > 0))
