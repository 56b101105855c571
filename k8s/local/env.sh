# Paths, versions and helpers of the scripts in this folder. To be sourced.

local_scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$local_scripts/../.." && pwd)
root=${TIDEMARK_CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidemark/cluster}
bin=$root/bin       # built programs; kept
src=$root/src       # sources and root file systems that they are built from; kept
images=$root/images # image archives and the registry's data; kept
run=$root/run       # state of the running cluster; `down` removes it
logs=$run/logs

k8s_version=1.34.4
coredns_version=1.12.4
metrics_server_version=0.8.0
kube_router_version=2.1.0
mongosh_version=2.12.0
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$project/Cargo.toml" | head -1)

netns=tidemark-cluster
node=node-1
node_ip=10.99.0.1
registry=$node_ip:5000
pod_cidr=10.244.0.0/24
service_cidr=10.96.0.0/16
api_ip=10.96.0.1
dns_ip=10.96.0.10
# cgroup of the pods, and with `-control` that of the control plane. Their shares of
# the CPU, against 1024 of an ordinary process: more on a machine that is busy with
# other work, or the checks fail by their times.
cgroup=tidemark-cluster
cpu_shares=${TIDEMARK_CLUSTER_CPU_SHARES:-700}

# Builds yield to everything else on the machine.
quiet=(nice -n "${TIDEMARK_CLUSTER_NICE:-19}")
export KUBECONFIG=$run/admin.kubeconfig
export PATH=$bin:$PATH:/usr/sbin:/sbin

# The programs run in namespaces whose first process is the holder. When it exits,
# the kernel ends all of them and removes their mounts.
# `holder` prints its pid, if it runs: after a restart of the machine the number in the
# file may be that of another process.
holder() {
    local pid
    pid=$(cat "$run/holder.pid" 2>/dev/null) || return 1
    [ -n "$pid" ] && [ "/proc/$pid/exe" -ef "$bin/pause" ] && echo "$pid"
}

inside() {
    nsenter --target "$(cat "$run/holder.pid")" --net --mount --pid --wdns="$PWD" -- "$@"
}

k() {
    "$run/kubectl" "$@"
}

ctr() {
    inside ctr --address "$run/containerd.sock" --namespace k8s.io "$@"
}

# start NAME PROGRAM...: in the namespaces, in the background, with a log.
start() {
    local name=$1
    shift
    nsenter --target "$(cat "$run/holder.pid")" --net --mount --pid -- \
        setsid nice -n 5 "$@" >"$logs/$name.log" 2>&1 </dev/null &
    disown
}

# wait_for WHAT SECONDS COMMAND...: until the command succeeds.
wait_for() {
    local what=$1 limit=$2 until=$((SECONDS + $2))
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $until ] || {
            echo "k8s/cluster: no $what within $limit s" >&2
            return 1
        }
        sleep 0.5
    done
}

# timed WHAT COMMAND...: prints how long the command took.
timed() {
    local what=$1 began=$SECONDS
    shift
    "$@"
    echo "k8s/cluster: $((SECONDS - began)) s: $what"
}

# mongod as `./test` installs it.
mongod() {
    local found
    found=$(find "${XDG_CACHE_HOME:-$HOME/.cache}/tidemark" -path '*/mongod-*' -name mongod -type f 2>/dev/null || true)
    echo "${found%%$'\n'*}"
}

# The mirror from which this machine installs Debian packages.
debian_mirror() {
    local found
    found=$(sed -nE 's/^URIs: (.*[^/])\/?$/\1/p; s/^deb (http[^ ]*[^/])\/? .*/\1/p' \
        $(ls /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null) | grep -v security || true)
    echo "${found%%$'\n'*}"
}
