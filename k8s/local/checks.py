"""The checks of k8s/cluster, on a running cluster that has the images.

    checks.py PROJECT KUBECTL REPORT [NAME...]

PROJECT is a folder with the committed files, KUBECTL a command that reaches the
cluster. Writes REPORT in Markdown. With NAMEs, runs only those checks, after `apply`.
Exits with 1 if a check fails.
"""

import contextlib
import datetime
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

NAMESPACE = "tidemark"
CLUSTER_IP = f"dns:///tidemark.{NAMESPACE}.svc.cluster.local:50051"
# gRPC resolves a name at most once in this time: a client is "young" before.
DNS_SECONDS = 30
# A hung process is replaced within this time.
HANG_SECONDS = 45
# The age of connections in the check of scaling.
AGE_SECONDS = 45
# Todos of the memory check: more than the near cache of the overlay dev holds.
SWEEP_TODOS = 60_000
# The kubelet updates mounted ConfigMaps and Secrets within its sync period of a minute
# or so, and the service looks every 2 s.
MOUNTED_SECONDS = 180
# MongoDB's election and the start of its pod, on a busy machine.
MONGODB_SECONDS = 90
# metrics-server measures every 15 s, and the autoscaler looks every 15 s.
AUTOSCALER_SECONDS = 120
# Calls a second that keep two replicas busier than the autoscaler's target of 60 m each.
AUTOSCALER_RATE = 800
# Connections of the check of mongod's probe, and how many it opens a second: enough to
# be seen beside the rest of mongod.
PROBES, PROBES_A_SECOND = 3000, 150
WAIT_SECONDS = 240

project, kubectl_command, report_file = sys.argv[1:4]
chosen = sys.argv[4:]
cgroup = os.environ.get("TIDEMARK_CLUSTER_CGROUP", "")
# cgroup v2 has one tree; v1 has one for each controller.
CGROUPS = pathlib.Path("/sys/fs/cgroup")
UNIFIED = (CGROUPS / "cgroup.controllers").exists()
rows = []


class Failed(Exception):
    """A check that does not hold, with what was seen."""


def expect(holds, seen):
    if not holds:
        raise Failed(seen)


def kubectl(*arguments, check=True, text=None, timeout=WAIT_SECONDS + 60):
    done = subprocess.run(
        [kubectl_command, *arguments], capture_output=True, text=True, input=text, timeout=timeout, cwd=project
    )
    if check and done.returncode != 0:
        raise Failed(f"kubectl {' '.join(arguments)[:80]}: {done.stderr.strip()[:300]}")
    return done


def get(kind, *arguments):
    return json.loads(kubectl("-n", NAMESPACE, "get", kind, "-o", "json", *arguments).stdout)


def pods(app="tidemark"):
    """Pods that are not being deleted."""
    found = get("pods", "-l", f"app.kubernetes.io/name={app}")["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def names(found):
    return [pod["metadata"]["name"] for pod in found]


def restarts():
    return sum(status["restartCount"] for pod in pods() for status in pod["status"].get("containerStatuses", []))


def ready(pod):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def eventually(what, look, limit=WAIT_SECONDS):
    """The time until `look` returns something true."""
    began = time.monotonic()
    while time.monotonic() - began < limit:
        with contextlib.suppress(Failed):
            if look():
                return time.monotonic() - began
        time.sleep(0.5)
    raise Failed(f"{what}: not within {limit} s")


def rolled_out():
    kubectl("-n", NAMESPACE, "rollout", "status", "deployment/tidemark", f"--timeout={WAIT_SECONDS}s")


class Load:
    """A client in the cluster that calls at a steady rate until its time is over."""

    def __init__(self, name, seconds, *arguments, text=None, pod="client"):
        self.name = name
        command = [kubectl_command, "exec", "-i", "-n", "clients", pod, "--", "/client", "load"]
        command += ["-name", name, "-duration", f"{seconds}s", *arguments]
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )
        if text:
            self.process.stdin.write(text)
        self.process.stdin.close()
        self.process.stdin = None

    def result(self):
        output, _ = self.process.communicate(timeout=400)
        self.errors.seek(0)
        errors = self.errors.read()
        lines = output.strip().splitlines()
        expect(self.process.returncode == 0 and lines, f"client {self.name}: {errors.strip()[-300:]}")
        result = json.loads(lines[-1])
        result["errors"] = errors.strip()
        result.setdefault("failures", {})
        return result


# One call in so many of the client is an update: k8s/local/load/load.go.
UPDATE_EVERY = 20


def watch_gaps(result):
    """What a watch lacks: changes, or its place in the stream. Empty for a whole one."""
    watch, gaps = result["watch"], []
    if watch["missing"]:
        gaps.append(f"the watch misses {watch['missing']}")
    # Changes of a todo that is busy may be merged, but a dead watch delivers none.
    if watch["changes"] < result["calls"] / UPDATE_EVERY / 2:
        gaps.append(f"the watch has {watch['changes']} changes for {result['calls']} calls")
    return gaps


def none_failed(loads):
    """All calls succeeded, and no watch has missed a change."""
    parts, well = [], True
    for load in loads:
        result = load.result()
        parts.append(f"{load.name}: {result['failed']} of {result['calls']}")
        if result["failed"] or not result["calls"]:
            well = False
            parts[-1] += f" {result['failures']} {result['errors'].splitlines()[:2]}"
        if watch := result.get("watch"):
            well = well and not watch_gaps(result) and not watch["resets"]
            parts[-1] += f" (watch: {watch['changes']} changes, resumed {watch['resumed']} times, {watch['resets']} resets"
            parts[-1] += f", missing: {watch['missing'] or 'none'})"
    detail = "failed " + "; ".join(parts)
    expect(well, detail)
    return detail


def three_clients(label, seconds, old=True):
    """Clients of all kinds: through the ClusterIP, and balancing, old (unless all are young) and young."""
    loads = [Load(f"{label}-cluster-ip", seconds, "-mode", "plain", "-channels", "4", "-target", CLUSTER_IP)]
    loads.append(Load(f"{label}-{'old' if old else 'watching'}", seconds, "-watch"))
    if old:
        time.sleep(DNS_SECONDS + 5)
    loads.append(Load(f"{label}-young", seconds - (DNS_SECONDS + 5 if old else 0)))
    time.sleep(2)
    return loads


def container_pid(pod):
    """The program's pid on this machine, by its cgroup."""
    uid = pod["metadata"]["uid"]
    tree = cgroup if UNIFIED else f"*/{cgroup}"
    for found in CGROUPS.glob(f"{tree}/kubepods/**/pod{uid}/*/cgroup.procs"):
        for pid in found.read_text().split():
            program = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
            if program != "pause":
                return int(pid), found.parent
    raise Failed(f"no process of {pod['metadata']['name']} found")


def beside(group, controller):
    """The same group of another controller of cgroup v1."""
    return CGROUPS / controller / pathlib.Path(*group.parts[len(CGROUPS.parts) + 1 :])


def cpu_nanoseconds(group):
    if UNIFIED:
        return 1000 * int(re.search(r"^usage_usec (\d+)", (group / "cpu.stat").read_text(), re.M)[1])
    return int((beside(group, "cpuacct") / "cpuacct.usage").read_text())


def memory_mib(group):
    """The most that was used, and the limit."""
    files = [group / "memory.peak", group / "memory.max"]
    if not UNIFIED:
        files = [beside(group, "memory") / f"memory.{name}_in_bytes" for name in ("max_usage", "limit")]
    return [int(file.read_text()) >> 20 for file in files]


def is_local(what):
    expect(cgroup, f"NOT RUN: {what} needs the processes of this machine")


def apply_dev():
    began = time.monotonic()
    done = kubectl("apply", "-k", "k8s/overlays/dev")
    expect("arning" not in done.stderr, done.stderr)
    kubectl("-n", NAMESPACE, "wait", "--for=condition=Available", "deployment/tidemark", f"--timeout={WAIT_SECONDS}s")
    took = time.monotonic() - began
    kubectl("-n", NAMESPACE, "wait", "--for=condition=Complete", "job/mongodb-init", f"--timeout={WAIT_SECONDS}s")
    eventually("the autoscaler's minimum", lambda: len([p for p in pods() if ready(p)]) == 2)
    init = get("pods", "-l", "app.kubernetes.io/name=mongodb-init")["items"]
    failed = sum(status["restartCount"] for pod in init for status in pod["status"]["containerStatuses"])
    expect(failed == 0 and len(init) == 1, f"mongodb-init failed {failed + len(init) - 1} times")
    rolled_out()
    return f"available {took:.0f} s after apply, no warning; mongodb-init completes at once"


# What `docker run --read-only -v tidemark:/data tidemark:VERSION` is in a cluster: the
# image's own command, environment and user, and the embedded store.
ALONE = """
apiVersion: v1
kind: Pod
metadata:
  name: alone
  namespace: clients
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 40
  containers:
    - name: tidemark
      image: IMAGE
      imagePullPolicy: IfNotPresent
      securityContext:
        readOnlyRootFilesystem: true
        runAsNonRoot: true
        allowPrivilegeEscalation: false
        capabilities: {drop: [ALL]}
      volumeMounts: [{name: data, mountPath: /data}]
      readinessProbe: {grpc: {port: 50051, service: readiness}, periodSeconds: 1}
  volumes: [{name: data, emptyDir: {}}]
"""


def image_alone():
    image = pods()[0]["spec"]["containers"][0]["image"]
    program = ("exec", "-n", "clients", "alone", "--", "/tidemark")
    try:
        kubectl("apply", "-f", "-", text=ALONE.replace("IMAGE", image))
        began = time.monotonic()
        kubectl("-n", "clients", "wait", "--for=condition=Ready", "pod/alone", f"--timeout={WAIT_SECONDS}s")
        took = time.monotonic() - began
        kubectl(*program, "add", "home", "Buy", "bread")
        expect("Buy bread" in kubectl(*program, "list", "home").stdout, "the todo is not in its list")
        began = time.monotonic()
        kubectl("-n", "clients", "delete", "pod", "alone", "--wait=true")
        return f"ready after {took:.0f} s with the embedded store, read-only, without capabilities; ends in {time.monotonic() - began:.0f} s"
    finally:
        kubectl("-n", "clients", "delete", "pod", "alone", "--ignore-not-found", "--wait=false")


def diff_after_apply():
    kubectl("apply", "-k", "k8s/overlays/dev")
    done = kubectl("diff", "-k", "k8s/overlays/dev", check=False)
    changed = re.findall(r"^diff .*/MERGED-\d+/(\S+)", done.stdout, re.M)
    expect(done.returncode == 0, f"kubectl diff after apply exits with {done.returncode}: {changed} {done.stderr[:200]}")
    return "kubectl diff is empty, exit 0"


def admission():
    done = kubectl("-n", NAMESPACE, "run", "plain", "--image=client:local", "--dry-run=server", check=False)
    expect("violates PodSecurity" in done.stderr, f"a plain pod is admitted: {done.stderr or done.stdout}")
    return "all pods of the overlay are admitted under `restricted`, a plain pod is not"


def overlays_apply():
    """Server-side dry runs, on a cluster without any custom resource definition."""
    for overlay in ("prod", "prod-open", "prod-tls"):
        done = kubectl("apply", "-k", f"k8s/overlays/{overlay}", "--dry-run=server", check=False)
        expect(done.returncode == 0, f"{overlay}: {done.stderr[:300]}")
    seen = "prod, prod-open and prod-tls exit 0 without the Prometheus operator (server-side dry run)"
    # k8s/check installs it there.
    helm = shutil.which("helm") or os.path.expanduser("~/.cache/tidemark/k8s/bin/helm")
    if not os.access(helm, os.X_OK):
        return f"{seen}; the chart was not tried: no helm"
    command = [helm, "template", "tidemark", "k8s/chart", "--namespace", NAMESPACE, "--kube-version", "1.34.0"]
    chart = subprocess.run(command, capture_output=True, text=True, cwd=project)
    expect(chart.returncode == 0, f"helm template: {chart.stderr[:300]}")
    done = kubectl("apply", "--dry-run=server", "-f", "-", check=False, text=chart.stdout)
    expect(done.returncode == 0, f"chart: {done.stderr[:300]}")
    return f"{seen}, and so does the chart"


def probes():
    expect(restarts() == 0, f"{restarts()} restarts")
    bad = [
        event["message"]
        for event in get("events")["items"]
        if event["reason"] == "Unhealthy" and "iveness" in event["message"]
    ]
    expect(not bad, f"liveness failed: {bad[:2]}")
    for pod in pods():
        name, status = pod["metadata"]["name"], pod["status"]["containerStatuses"][0]
        expect(status["started"] and status["ready"], f"{name} is not ready")
        caught_up = logged(name, "caught up with the database")
        became = next(c for c in pod["status"]["conditions"] if c["type"] == "Ready")["lastTransitionTime"]
        # Both in UTC. The API has seconds only.
        expect(became[:19] >= caught_up[:19], f"{name} is ready at {became}, but has caught up at {caught_up}")
    return "caught up, then started and ready; no liveness failure, no restart"


def logged(name, message):
    """The time of the first line of a pod's log with this message."""
    for line in kubectl("-n", NAMESPACE, "logs", name).stdout.splitlines():
        if f'"{message}"' in line:
            return json.loads(line)["timestamp"]
    raise Failed(f"the log of {name} has no line {message!r}")


# Which connections a process may open, from within the network namespace of its pod.
CONNECT = """
import socket, sys
for address in sys.argv[1:]:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), 3).close()
        print(address, "open")
    except OSError:
        print(address, "blocked")
"""


def outgoing(api, dns, coredns):
    """Connections of the pods of the overlay dev: a pod, and {address: expected}."""
    mongodb, redis, (tidemark, other) = pods("mongodb")[0], pods("redis")[0], pods()[:2]
    to_mongodb, to_redis, to_other = (
        f"{pod['status']['podIP']}:{port}" for pod, port in ((mongodb, 27017), (redis, 6379), (other, 50051))
    )
    closed = {api: "blocked", coredns: "blocked"}
    return [
        (tidemark, {to_mongodb: "open", to_redis: "open", dns: "open", to_other: "blocked", **closed}),
        (mongodb, {dns: "open", to_redis: "blocked", **closed}),
        (redis, {dns: "blocked", to_mongodb: "blocked", **closed}),
    ]


def connections_of(pod, addresses):
    pid, _ = container_pid(pod)
    command = ["nsenter", "--target", str(pid), "--net", "--", sys.executable, "-c", CONNECT, *addresses]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return dict(line.split() for line in done.stdout.splitlines())


def policies():
    pod = pods()[0]["status"]["podIP"]
    mongodb = pods("mongodb")[0]["status"]["podIP"]
    redis = pods("redis")[0]["status"]["podIP"]
    service = get("service", "tidemark")["spec"]["clusterIP"]
    api = json.loads(kubectl("get", "service", "kubernetes", "-o", "json").stdout)["spec"]["clusterIP"] + ":443"
    dns = json.loads(kubectl("-n", "kube-system", "get", "service", "kube-dns", "-o", "json").stdout)["spec"]["clusterIP"] + ":53"
    # Its metrics: a port that no policy closes but that of who connects.
    coredns = json.loads(kubectl("-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns", "-o", "json").stdout)
    coredns = coredns["items"][0]["status"]["podIP"] + ":9153"
    expected = {
        ("clients", "client"): {f"{service}:50051": "open", f"{pod}:50051": "open", f"{pod}:9464": "blocked",
                                f"{mongodb}:27017": "blocked", f"{redis}:6379": "blocked"},
        ("clients", "stranger"): {f"{service}:50051": "blocked", f"{pod}:50051": "blocked", f"{pod}:9464": "blocked",
                                  f"{mongodb}:27017": "blocked", f"{redis}:6379": "blocked",
                                  api: "open", coredns: "open"},
        ("monitoring", "prometheus"): {f"{pod}:9464": "open", f"{pod}:50051": "blocked",
                                       f"{mongodb}:27017": "blocked", f"{redis}:6379": "blocked"},
    }  # fmt: skip
    count = 0
    for (namespace, name), pairs in expected.items():
        output = kubectl("exec", "-n", namespace, name, "--", "/client", "connect", *pairs).stdout
        seen = dict(line.split() for line in output.splitlines())
        for address, want in pairs.items():
            got = "blocked" if seen[address] == "refused" else seen[address]
            expect(got == want, f"{name} to {address}: {seen[address]}, expected {want}")
            count += 1
    if not cgroup:
        return f"{count} pairs as written; not run: those of the service's own pods, whose processes are not of this machine"
    for source, pairs in outgoing(api, dns, coredns):
        seen = connections_of(source, pairs)
        for address, want in pairs.items():
            expect(seen[address] == want, f"{source['metadata']['name']} to {address}: {seen[address]}, expected {want}")
            count += 1
    return f"{count} pairs as written, those from tidemark, MongoDB and Redis among them"


def logs_are_json():
    lines = 0
    for name in names(pods()):
        for line in kubectl("-n", NAMESPACE, "logs", name).stdout.splitlines():
            lines += 1
            try:
                json.loads(line)
            except ValueError:
                raise Failed(f"not JSON: {line[:120]!r}") from None
    return f"{lines} lines, all JSON"


# Opens and closes connections as the kubelet's TCP probe does.
PROBE = """
import socket, sys, time
address, count, pause = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3]), float(sys.argv[4])
for _ in range(count):
    socket.create_connection(address, 2).close()
    time.sleep(pause)
"""


def mongod_cpu():
    """What the probes cost: mongod's time on the CPU for one connection, times their rate."""
    is_local("this check")
    pod = pods("mongodb")[0]
    _, group = container_pid(pod)
    container = pod["spec"]["containers"][0]
    probes = [container["readinessProbe"], container["livenessProbe"]]
    expect(all("tcpSocket" in probe for probe in probes), f"the probes are {probes}")
    rate = sum(1 / probe["periodSeconds"] for probe in probes)

    def cores(during):
        before, began = cpu_nanoseconds(group), time.monotonic()
        during()
        took = time.monotonic() - began
        return (cpu_nanoseconds(group) - before) / 1e9 / took, took

    def connect():
        holder = pathlib.Path(kubectl_command).with_name("holder.pid").read_text().strip()
        command = ["nsenter", "--target", holder, "--net", "--", sys.executable, "-c", PROBE, pod["status"]["podIP"], "27017"]
        subprocess.run([*command, str(PROBES), str(1 / PROBES_A_SECOND)], check=True)

    idle, _ = cores(lambda: time.sleep(30))
    busy, took = cores(connect)
    again, _ = cores(lambda: time.sleep(30))
    rest = (idle + again) / 2
    each = max(0.0, busy - rest) * took / PROBES
    probe = each * rate
    expect(probe < 0.01, f"the probes use {probe:.4f} cores")
    return (
        f"readiness and liveness by TCP, {rate:.2f} connections a second of {each * 1e6:.0f} us each: {probe:.5f} cores for the"
        f" probes (by {PROBES} connections); mongod in all {idle:.3f} and {again:.3f} cores, with two replicas idle"
    )


def rollout():
    loads = three_clients("rollout", 150)
    began = time.monotonic()
    kubectl("-n", NAMESPACE, "rollout", "restart", "deployment/tidemark")
    rolled_out()
    return f"{time.monotonic() - began:.0f} s; {none_failed(loads)}"


def rollback():
    loads = three_clients("rollback", 110, old=False)
    kubectl("-n", NAMESPACE, "rollout", "undo", "deployment/tidemark")
    rolled_out()
    return none_failed(loads)


def eviction():
    loads = three_clients("eviction", 60, old=False)
    refused = 0
    for name in names(pods())[:2]:
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
        done = kubectl("create", "--raw", path, "-f", "-", check=False, text=json.dumps(body))
        refused += "disruption budget" in done.stderr
    expect(refused == 1, f"{refused} of two evictions were refused")
    detail = none_failed(loads)
    rolled_out()
    return f"the second eviction is refused by the PodDisruptionBudget; {detail}"


def drain():
    node = pods()[0]["spec"]["nodeName"]
    loads = three_clients("drain", 70, old=False)
    try:
        selector = "--pod-selector=app.kubernetes.io/name=tidemark"
        done = kubectl("drain", node, selector, "--ignore-daemonsets", "--timeout=20s", check=False)
    finally:
        kubectl("uncordon", node)
    expect("disruption budget" in done.stdout + done.stderr, f"the budget did not hold: {done.stderr[:300]}")
    detail = none_failed(loads)
    rolled_out()
    return f"one pod leaves, the other is held by the budget; {detail}"


def scale():
    """A third replica gets its share from clients that are connected already."""
    kubectl("-n", NAMESPACE, "delete", "hpa", "tidemark")
    try:
        # Shorter than in the manifests (5 min), so that the check takes two minutes.
        kubectl("-n", NAMESPACE, "set", "env", "deployment/tidemark", f"TIDEMARK_MAX_CONNECTION_AGE={AGE_SECONDS}s")
        rolled_out()
        load = Load("scale", 2 * AGE_SECONDS + DNS_SECONDS, "-watch", "-rate", "50")
        time.sleep(5)
        before = names(pods())
        kubectl("-n", NAMESPACE, "scale", "deployment/tidemark", "--replicas=3")
        rolled_out()
        new = next(pod for pod in pods() if pod["metadata"]["name"] not in before)
        address = f"{new['status']['podIP']}:50051"
        result = load.result()
        share = result["last_peers"].get(address, 0) / max(1, sum(result["last_peers"].values()))
        expect(result["failed"] == 0, f"{result['failed']} of {result['calls']} failed: {result['failures']}")
        expect(not watch_gaps(result), "; ".join(watch_gaps(result)))
        down = three_clients("scale-down", 60, old=False)
        kubectl("-n", NAMESPACE, "scale", "deployment/tidemark", "--replicas=2")
        detail = none_failed(down)
        expect(share > 0.2, f"the new replica answers {share:.0%} of the last calls; scaling down: {detail}")
        return f"up: 0 of {result['calls']} failed, the new replica answers {share:.0%} of the last calls (connection age {AGE_SECONDS} s); down: {detail}"
    finally:
        kubectl("apply", "-k", "k8s/overlays/dev")
        rolled_out()


def autoscaler():
    """metrics-server has what the HorizontalPodAutoscaler asks for, and it scales by it."""
    manifest = "k8s/local/system/metrics-server.yaml"
    expect(is_built("metrics-server"), "NOT RUN: metrics-server is not built: k8s/local/build metrics-server")
    kubectl("apply", "-f", manifest)
    try:
        kubectl("-n", "kube-system", "rollout", "status", "deployment/metrics-server", f"--timeout={WAIT_SECONDS}s")

        def is_active():
            status = get("hpa", "tidemark")["status"]
            active = [c for c in status.get("conditions", []) if c["type"] == "ScalingActive"]
            return active and active[0]["status"] == "True" and status.get("currentMetrics")

        took = eventually("the autoscaler has its metric", is_active, AUTOSCALER_SECONDS)
        path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/pods"
        seen = {item["metadata"]["name"] for item in json.loads(kubectl("get", "--raw", path).stdout)["items"]}
        missing = set(names(pods())) - seen
        expect(not missing, f"metrics.k8s.io lacks {missing}")
        wanted = [metric["resource"]["name"] for metric in get("hpa", "tidemark")["spec"]["metrics"]]
        idle = utilization()
        before = len(pods())
        load = Load("autoscaler", 100, "-mode", "plain", "-channels", "4", "-target", CLUSTER_IP, "-rate", str(AUTOSCALER_RATE))
        most, added = idle, None
        began = time.monotonic()
        while load.process.poll() is None:
            most = max(most, utilization())
            if added is None and len([pod for pod in pods() if ready(pod)]) > before:
                added = time.monotonic() - began
            time.sleep(2)
        detail = none_failed([load])
        expect(added is not None, f"no replica was added at {most} % of the request; {detail}")
        return (
            f"ScalingActive after {took:.0f} s, {', '.join(wanted)} of all pods in metrics.k8s.io; {idle} % of the request idle,"
            f" {most} % under load: a third replica is ready after {added:.0f} s; {detail}"
        )
    finally:
        kubectl("delete", "-f", manifest, "--ignore-not-found")
        kubectl("-n", NAMESPACE, "scale", "deployment/tidemark", "--replicas=2")
        rolled_out()
        eventually("two replicas", lambda: len(pods()) == 2)


def utilization():
    """What the autoscaler sees, in percent of the request; 0 before it sees anything."""
    for metric in get("hpa", "tidemark")["status"].get("currentMetrics", []):
        if metric["type"] == "Resource":
            return metric["resource"]["current"].get("averageUtilization", 0)
    return 0


def is_built(program):
    return bool(cgroup) and shutil.which(program) is not None


def redis_deleted():
    loads = three_clients("redis", 45, old=False)
    kubectl("-n", NAMESPACE, "delete", "pod", *names(pods("redis")), "--wait=false")
    return none_failed(loads)


def mongodb_deleted():
    load = Load("mongodb", 90, "-watch")
    time.sleep(5)
    before = restarts()
    kubectl("-n", NAMESPACE, "delete", "pod", "mongodb-0", "--wait=false")
    result = load.result()
    expect(not watch_gaps(result), "; ".join(watch_gaps(result)))
    expect(restarts() == before, "a replica was restarted")
    # Without a primary a write is refused; it does not wait until its caller gives up.
    late = result["failures"].get("update DeadlineExceeded", 0)
    expect(not late, f"{late} writes ended with the caller's deadline: {result['failures']} {result['errors'][:300]}")
    after = Load("mongodb-after", 10).result()
    expect(after["failed"] == 0, f"{after['failed']} calls still fail afterwards")
    return (
        f"{result['failed']} of {result['calls']} calls fail ({result['failures']}, longest {result['max_ms']:.0f} ms),"
        f" no restart, no change missing, then none"
    )


def frozen():
    is_local("freezing a process")
    pod = pods()[0]
    pid, _ = container_pid(pod)
    began = time.monotonic()
    os.kill(pid, signal.SIGSTOP)

    def replaced():
        return any(
            status["restartCount"] > 0 and "running" in status["state"]
            for found in pods()
            if found["metadata"]["name"] == pod["metadata"]["name"]
            for status in found["status"]["containerStatuses"]
        )

    eventually("a new process", replaced, limit=120)
    took = time.monotonic() - began
    expect(took < HANG_SECONDS, f"replaced after {took:.0f} s")
    rolled_out()
    return f"a new process runs {took:.0f} s after SIGSTOP"


def upgrade():
    """Rolls out the image of an earlier commit, then this one, under load."""
    images = json.loads(kubectl("get", "nodes", "-o", "json").stdout)["items"][0]["status"]["images"]
    # An image whose last tag is gone has no names.
    tags = [name for image in images for name in image["names"] or []]
    expect(any("tidemark:previous" in tag for tag in tags), "NOT RUN: the cache has no image of an earlier commit")
    current = get("deployment", "tidemark")["spec"]["template"]["spec"]["containers"][0]["image"]
    kubectl("-n", NAMESPACE, "set", "image", "deployment/tidemark", "tidemark=tidemark:previous")
    rolled_out()
    before = revision()
    loads = three_clients("upgrade", 140, old=False)
    kubectl("-n", NAMESPACE, "set", "image", "deployment/tidemark", f"tidemark={current}")
    crossed = both_versions(current)
    kubectl("-n", NAMESPACE, "rollout", "resume", "deployment/tidemark")
    rolled_out()
    return f"from {before} to {revision()}; both serving: {crossed}; {none_failed(loads)}"


def metric(pod, name):
    """The line of a metric without labels, or of the only series."""
    return re.search(rf"^{name}\b.*", metrics_text(pod), re.M)[0]


def value(pod, series):
    """The value of a series, with its labels."""
    line = next((line for line in metrics_text(pod).splitlines() if line.startswith(f"{series} ")), "0")
    return float(line.split()[-1])


def metrics_text(pod):
    url = f"http://{pod['status']['podIP']}:9464/metrics"
    return kubectl("exec", "-n", "monitoring", "prometheus", "--", "/client", "fetch", url).stdout


def revision():
    return re.search(r'revision="(.*?)"', metric(pods()[0], "tidemark_build_info"))[1]


def both_versions(image):
    """Stops the rollout with replicas of both versions, which then read from each other."""
    kubectl("-n", NAMESPACE, "rollout", "pause", "deployment/tidemark")

    def addresses():
        found = {True: [], False: []}
        for pod in pods():
            if ready(pod):
                is_new = pod["spec"]["containers"][0]["image"] == image
                found[is_new].append(f"{pod['status']['podIP']}:50051")
        return found[True] and found[False] and (found[False][0], found[True][0])

    eventually("replicas of both versions", addresses)
    done = kubectl("exec", "-n", "clients", "client", "--", "/client", "cross", *addresses())
    parts = []
    for name, seen in zip(("new reads of old", "old of new"), json.loads(done.stdout)):
        parts.append(
            f"{name}: {seen['tokens']} reads by token, {seen['pages']} pages, {seen['changes']} changes after a token,"
            f" {seen['shared']} of 3 reads from Redis"
        )
    return "; ".join(parts)


def certificate(folder, name):
    """A self-signed certificate for the names of both Services: (certificate, key)."""
    files = [f"{folder}/{name}.{kind}" for kind in ("crt", "key")]
    hosts = [f"{service}.{NAMESPACE}.svc.cluster.local" for service in ("tidemark", "tidemark-headless")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=" + ",".join(f"DNS:{host}" for host in hosts),
         "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return files


def put_certificate(files):
    put("secret", "tls", "tidemark-tls", f"--cert={files[0]}", f"--key={files[1]}")


def put(*arguments):
    """Creates or changes a Secret or ConfigMap: the arguments of `kubectl create`."""
    made = kubectl("-n", NAMESPACE, "create", *arguments, "--dry-run=client", "-o", "yaml").stdout
    kubectl("apply", "-f", "-", text=made)


# An overlay with the resources and the number of replicas of this small cluster.
SMALL = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../OVERLAY]
images: [{name: registry.example.com/tidemark, newName: tidemark, newTag: "VERSION"}]
patches:
  - path: small.yaml
  - path: one-or-two.yaml
"""

# API keys beside the tokens.
KEYS = """apiVersion: apps/v1
kind: Deployment
metadata: {name: tidemark}
spec:
  template:
    spec:
      containers:
        - name: tidemark
          env:
            - {name: TIDEMARK_AUTH, value: "jwt,keys"}
            - {name: TIDEMARK_KEYS_FILE, value: /etc/tidemark-keys/keys}
          volumeMounts: [{name: keys, mountPath: /etc/tidemark-keys, readOnly: true}]
      volumes: [{name: keys, secret: {secretName: tidemark-keys, defaultMode: 0440}}]
"""


def put_addresses(mac_key=None):
    """The Secret of the overlay dev's addresses, with a key for entries in Redis."""
    text = pathlib.Path(project, "k8s/overlays/dev/tidemark.toml").read_text()
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder, "tidemark.toml")]
        if mac_key:
            files.append(pathlib.Path(folder, "redis-mac.key"))
            files[1].write_bytes(mac_key)
            text += '\nredis-mac-key-file = "/etc/tidemark/redis-mac.key"\n'
        files[0].write_text(text)
        put("secret", "generic", "tidemark-addresses", *(f"--from-file={file}" for file in files))


def apply_small(overlay, patch=None, mac_key=None):
    """Applies an overlay of production, on the MongoDB and Redis of the overlay dev."""
    put_addresses(mac_key)
    small = pathlib.Path(project, f"k8s/overlays/small-{overlay}")
    small.mkdir(exist_ok=True)
    # kustomize reads patches from the folder of the overlay only.
    for name in ("small.yaml", "one-or-two.yaml"):
        (small / name).write_text(pathlib.Path(project, "k8s/overlays/dev", name).read_text())
    version = re.search(r'^version = "(.*)"', pathlib.Path(project, "Cargo.toml").read_text(), re.M)[1]
    text = SMALL.replace("VERSION", version).replace("OVERLAY", overlay)
    if patch:
        (small / "patch.yaml").write_text(patch)
        text += "  - path: patch.yaml\n"
    (small / "kustomization.yaml").write_text(text)
    kubectl("apply", "-k", f"k8s/overlays/small-{overlay}")
    rolled_out()
    done = kubectl("diff", "-k", f"k8s/overlays/small-{overlay}", check=False)
    expect(done.returncode == 0, f"kubectl diff after apply of {overlay} exits with {done.returncode}: {done.stdout[-300:]} {done.stderr[:200]}")


def tls():
    with tempfile.TemporaryDirectory() as folder:
        old, new = certificate(folder, "old"), certificate(folder, "new")
        put_certificate(old)
        apply_small("prod-tls")
        ca = pathlib.Path(old[0]).read_text()
        both = [Load("tls", 15, "-ca", "-", text=ca), Load("tls-ip", 15, "-ca", "-", "-target", CLUSTER_IP, text=ca)]
        detail = none_failed(both)
        health = f"{pods()[0]['status']['podIP']}:50052"
        seen = kubectl("exec", "-n", "clients", "client", "--", "/client", "connect", health).stdout.split()
        expect(seen[0] == health and seen[1] != "open", "a client reaches the port of the health checks")
        before = names(pods())
        put_certificate(new)
        ca = pathlib.Path(new[0]).read_text()

        def renewed():
            result = Load("tls-new", 1, "-ca", "-", text=ca).result()
            return result["failed"] == 0

        took = eventually("the new certificate", renewed)
        expect(names(pods()) == before and restarts() == 0, "the renewal restarted pods")
        return f"{detail}; a renewed certificate is in use after {took:.0f} s without a restart"


def token_of(account, audience="tidemark", namespace="clients"):
    return kubectl("-n", namespace, "create", "token", account, f"--audience={audience}").stdout.strip()


def refused(name, code, ca, *arguments):
    """The first call of a client fails with this code."""
    try:
        Load(name, 1, "-ca", "-", *arguments, text=ca).result()
    except Failed as failed:
        return f"code = {code}" in str(failed)
    return False


def accepted(name, ca, *arguments):
    try:
        return Load(name, 1, "-ca", "-", *arguments, text=ca).result()["failed"] == 0
    except Failed:
        return False


# Where clients.yaml mounts the projected token of the pod's service account.
MOUNTED_TOKEN = ("-token-file", "/var/run/tidemark/token")


def auth():
    """The overlay prod: who has a service account token of this cluster may call."""
    kubectl("apply", "-f", "k8s/local/system/clients.yaml")
    with tempfile.TemporaryDirectory() as folder:
        files = certificate(folder, "prod")
        put_certificate(files)
        ca = pathlib.Path(files[0]).read_text()
        # As the first lines of the overlay say.
        keys = pathlib.Path(folder, "jwks.json")
        keys.write_text(kubectl("get", "--raw", "/openid/v1/jwks").stdout)
        put("configmap", "tidemark-jwks", f"--from-file={keys}")
        issuer = json.loads(kubectl("get", "--raw", "/.well-known/openid-configuration").stdout)["issuer"]
        apply_small("prod")
        container = get("deployment", "tidemark")["spec"]["template"]["spec"]["containers"][0]
        env = {variable["name"]: variable.get("value") for variable in container["env"]}
        expect(env["TIDEMARK_JWT_ISSUER"] == issuer, f"the cluster's issuer is {issuer}")
        with_token = [Load("auth", 20, "-ca", "-", *MOUNTED_TOKEN, "-watch", text=ca)]
        with_token.append(Load("auth-ip", 20, "-ca", "-", *MOUNTED_TOKEN, "-target", CLUSTER_IP, text=ca))
        detail = none_failed(with_token)
        for what, code, arguments in [
            ("without a token", "Unauthenticated", ()),
            ("with a token for another audience", "Unauthenticated", ("-token", token_of("default", "other"))),
            ("with an API key", "Unauthenticated", ("-token", "tmk_0000")),
            # Not a member of the list of the clients above.
            ("as another service account", "PermissionDenied", ("-name", "auth", "-token", token_of("stranger"))),
        ]:
            expect(refused("auth-refused", code, ca, *arguments), f"a client {what} is not refused as {code}")
        admin = ("-name", "auth", "-token", token_of("tidemark-admin", namespace=NAMESPACE))
        expect(accepted("auth-admin", ca, *admin), "an administrator cannot call")
        return (
            f"with a projected token {detail}; an administrator may call; refused: no token, another audience and an"
            " unknown key as Unauthenticated, another service account as PermissionDenied"
        )


def keys_rotated():
    """The issuer's keys, API keys and the key of entries in Redis are replaced while the replicas serve."""
    with tempfile.TemporaryDirectory() as folder:
        files = certificate(folder, "keys")
        put_certificate(files)
        ca = pathlib.Path(files[0]).read_text()
        cluster = kubectl("get", "--raw", "/openid/v1/jwks").stdout
        other = json.loads(cluster)
        for key in other["keys"]:
            key["kid"] = "another"
        keys, jwks = pathlib.Path(folder, "keys"), pathlib.Path(folder, "jwks.json")

        def put_keys(lines):
            keys.write_text("".join(lines))
            put("secret", "generic", "tidemark-keys", f"--from-file={keys}")

        def put_jwks(text):
            jwks.write_text(text)
            put("configmap", "tidemark-jwks", f"--from-file={jwks}")

        def new_key():
            key, line = kubectl("-n", NAMESPACE, "exec", names(pods())[0], "--", "/tidemark", "key", "new", "user:ada").stdout.split("\n", 1)
            return key, line

        old, old_line = new_key()
        put_keys([old_line])
        put_jwks(cluster)
        apply_small("prod", KEYS, mac_key=b"1" * 32)
        with_key = ("-name", "rotated", "-token")
        eventually("the first key", lambda: accepted("key-old", ca, *with_key, old), MOUNTED_SECONDS)
        before = names(pods())
        new, new_line = new_key()
        put_keys([old_line, new_line])
        added = eventually("the second key", lambda: accepted("key-new", ca, *with_key, new), MOUNTED_SECONDS)
        put_keys([new_line])
        removed = eventually(
            "the first key is refused", lambda: refused("key-old", "Unauthenticated", ca, *with_key, old), MOUNTED_SECONDS
        )
        expect(accepted("key-new", ca, *with_key, new), "the second key is refused")
        expect(accepted("jwt", ca, *MOUNTED_TOKEN), "a token is refused")
        put_jwks(json.dumps(other))
        revoked = eventually(
            "tokens of a key that was removed are refused",
            lambda: refused("jwt", "Unauthenticated", ca, *MOUNTED_TOKEN),
            MOUNTED_SECONDS,
        )
        put_jwks(cluster)
        back = eventually("tokens of the key are accepted", lambda: accepted("jwt", ca, *MOUNTED_TOKEN), MOUNTED_SECONDS)
        put_addresses(b"2" * 32)
        loaded = 'tidemark_shared_key_reloads_total{kind="loaded"}'
        mac = eventually(
            "the new key of entries in Redis", lambda: all(value(pod, loaded) == 1 for pod in pods()), MOUNTED_SECONDS
        )
        expect(accepted("key-new", ca, *with_key, new), "a call fails after the new key of entries in Redis")
        expect(names(pods()) == before and restarts() == 0, "the rotation restarted pods")
        return (
            f"without a restart: a second API key accepted after {added:.0f} s, the first one refused {removed:.0f} s after"
            f" its removal; tokens refused {revoked:.0f} s after the issuer's key was removed, accepted {back:.0f} s after it was added; another --redis-mac-key-file in force in all replicas after {mac:.0f} s"
        )


def scale_to(kind, name, app, replicas):
    kubectl("-n", NAMESPACE, "scale", f"{kind}/{name}", f"--replicas={replicas}")
    if replicas == 0:
        eventually(f"{name} is scaled to 0", lambda: not get("pods", "-l", f"app.kubernetes.io/name={app}")["items"])
    else:
        kubectl("-n", NAMESPACE, "rollout", "status", f"{kind}/{name}", f"--timeout={WAIT_SECONDS}s")


def restore():
    """A backup of MongoDB's files is put back, by the steps of docs/operations.md."""
    is_local("copying MongoDB's files")
    data = pathlib.Path(os.environ["KUBECONFIG"]).parent / "pv/mongodb"
    backup = data.with_name("backup")

    def copy(source, target):
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "-a", source, target], check=True)

    def exists(name):
        done = kubectl("exec", "-n", "clients", "tools", "--", "/tidemark", "get", f"{name}/t0", "--consistency", "fully-consistent",
                       "--server", f"tidemark.{NAMESPACE}.svc.cluster.local:50051", check=False)  # fmt: skip
        return done.returncode == 0

    tools_pod()
    Load("before-backup", 2).result()
    scale_to("statefulset", "mongodb", "mongodb", 0)
    copy(data, backup)
    scale_to("statefulset", "mongodb", "mongodb", 1)
    eventually("writes", lambda: Load("after-backup", 2).result()["failed"] == 0)
    eventually("what was written after the backup", lambda: exists("after-backup"), 30)
    scale_to("deployment", "tidemark", "tidemark", 0)
    # The autoscaler leaves a Deployment of 0 replicas alone: longer than its interval of 15 s.
    time.sleep(30)
    expect(not pods(), "the autoscaler has started replicas")
    scale_to("statefulset", "mongodb", "mongodb", 0)
    shutil.rmtree(data)
    copy(backup, data)
    scale_to("statefulset", "mongodb", "mongodb", 1)
    kubectl("-n", NAMESPACE, "set", "env", "deployment/tidemark", f"TIDEMARK_CACHE_EPOCH={int(time.time())}")
    scale_to("deployment", "tidemark", "tidemark", 1)
    eventually("the autoscaler's minimum", lambda: len([pod for pod in pods() if ready(pod)]) == 2)
    expect(restarts() == 0, "a replica was restarted")
    expect(exists("before-backup"), "a todo of the backup is missing")
    expect(not exists("after-backup"), "a todo from after the backup is still there")
    detail = none_failed([Load("restored", 10, "-watch")])
    shutil.rmtree(backup)
    return f"no restart, the state of the backup and no later one is served; then {detail}"


def tools_pod():
    """A pod with the command line, beside the replicas: what it uses does not count for them."""
    image = pods()[0]["spec"]["containers"][0]["image"]
    kubectl("-n", "clients", "delete", "pod", "tools", "--ignore-not-found")
    kubectl("-n", "clients", "run", "tools", f"--image={image}", "--image-pull-policy=IfNotPresent",
            "--labels=tidemark.dev/client=true", "--command", "--", "/tidemark", "pause", "2h")  # fmt: skip
    kubectl("-n", "clients", "wait", "--for=condition=Ready", "pod/tools", f"--timeout={WAIT_SECONDS}s")


def memory():
    """Fills the near caches by reading more todos than they hold."""
    is_local("reading the memory of the pods")
    before = restarts()
    tools_pod()
    program = ("exec", "-i", "-n", "clients", "tools", "--", "/tidemark")
    service = f"tidemark.{NAMESPACE}.svc.cluster.local:50051"
    todos = kubectl(*program, "generate", str(SWEEP_TODOS)).stdout
    imported = kubectl(*program, "import", "-", "--server", service, "--timeout", "60s", text=todos, timeout=900)
    parts = [imported.stdout.strip() or imported.stderr.strip().splitlines()[-1]]
    for pod in pods():
        target = f"passthrough:///{pod['status']['podIP']}:50051"
        done = kubectl("exec", "-i", "-n", "clients", "client", "--", "/client", "sweep", "-target", target, text=todos, timeout=900)
        seen = json.loads(done.stdout)
        expect(not seen["failed"] and seen["todos"] == SWEEP_TODOS, f"sweep: {seen}")
        near, capacity = int(float(metric(pod, "tidemark_near_bytes").split()[-1])), 32 << 20
        expect(near > 0.9 * capacity, f"the near cache has {near} bytes")
        parts.append(f"{seen['todos']} todos read, near cache {near >> 20} of {capacity >> 20} MiB")
    expect(restarts() == before, "a replica was restarted")
    for pod in pods():
        _, group = container_pid(pod)
        peak, limit = memory_mib(group)
        expect(peak < limit, f"{pod['metadata']['name']} reached its limit of {limit} MiB")
        parts.append(f"peak {peak} of {limit} MiB")
    return "; ".join(parts)


def delete():
    began = time.monotonic()
    kubectl("delete", "-k", "k8s/overlays/dev", "--ignore-not-found", "--wait=true")
    left = kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name").stdout
    expect(not left, f"left: {left}")
    return f"{time.monotonic() - began:.0f} s, nothing left"


CHECKS = [
    ("apply", "", "apply of the overlay dev", apply_dev),
    ("diff", "K5", "apply again", diff_after_apply),
    ("image", "", "the image started by hand", image_alone),
    ("overlays", "K4", "prod, prod-open and prod-tls on a bare cluster", overlays_apply),
    ("admission", "", "Pod Security", admission),
    ("probes", "", "probes of the kubelet", probes),
    ("policies", "", "NetworkPolicies", policies),
    ("logs", "K7", "log format", logs_are_json),
    ("mongod", "K6", "CPU of mongod", mongod_cpu),
    ("rollout", "K1", "rollout restart under load", rollout),
    ("rollback", "K1", "rollout undo under load", rollback),
    ("upgrade", "", "upgrade from an earlier commit under load", upgrade),
    ("eviction", "", "eviction of two pods", eviction),
    ("drain", "", "drain of the node", drain),
    ("scale", "K2", "scale up and down", scale),
    ("autoscaler", "", "the autoscaler and metrics-server", autoscaler),
    ("redis", "", "Redis pod deleted", redis_deleted),
    ("mongodb", "K8", "MongoDB pod deleted", mongodb_deleted),
    ("restore", "", "MongoDB restored from a backup of its files", restore),
    ("frozen", "K3", "process frozen", frozen),
    ("memory", "", "memory with the near caches full", memory),
    ("tls", "", "prod-tls with small resources, certificate renewed", tls),
    ("auth", "", "prod with small resources, service account tokens", auth),
    ("keys", "", "API keys, the issuer's keys and the key of entries in Redis replaced", keys_rotated),
    ("delete", "", "delete", delete),
]


def about():
    """Versions and circumstances, for the head of the report."""
    versions = json.loads(kubectl("version", "-o", "json").stdout)
    node = json.loads(kubectl("get", "nodes", "-o", "json").stdout)["items"][0]["status"]["nodeInfo"]
    facts = {
        "commit": os.environ.get("TIDEMARK_CLUSTER_COMMIT", "unknown"),
        "image": os.environ.get("TIDEMARK_CLUSTER_IMAGE", "unknown"),
        **dict(line.split("=", 1) for line in os.environ.get("TIDEMARK_CLUSTER_FACTS", "").splitlines()),
        "Kubernetes": versions["serverVersion"]["gitVersion"],
        "container runtime": node["containerRuntimeVersion"],
        "kernel": node["kernelVersion"],
        "started": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "load average": " ".join(pathlib.Path("/proc/loadavg").read_text().split()[:3]),
    }
    return facts


def write_report(facts):
    lines = ["# Checks on a real Kubernetes", "", "Written by `k8s/cluster`. Cases K1 to K8 are faults that an earlier run found.", ""]
    if chosen:
        lines += [f"Only these checks were chosen: {', '.join(chosen)}.", ""]
    lines += ["| | |", "| --- | --- |"] + [f"| {name} | {value} |" for name, value in facts.items()] + [""]
    lines += ["| check | case | result | seconds | seen |", "| --- | --- | --- | --- | --- |"]
    for name, case, result, took, seen in rows:
        lines.append(f"| {name} | {case} | {result} | {took:.0f} | {seen.replace('|', '/').replace(chr(10), ' ')} |")
    pathlib.Path(report_file).write_text("\n".join(lines) + "\n")


def main():
    unknown = set(chosen) - {key for key, *_ in CHECKS}
    if unknown:
        print(f"k8s/cluster: there are no checks {sorted(unknown)}", file=sys.stderr)
        return 2
    facts = about()
    for key, case, name, check in CHECKS:
        if chosen and key != "apply" and key not in chosen:
            continue
        began = time.monotonic()
        try:
            result, seen = "pass", check()
        except Failed as failed:
            seen = str(failed)
            result = "not run" if seen.startswith("NOT RUN: ") else "FAIL"
            seen = seen.removeprefix("NOT RUN: ")
        except Exception as error:  # A fault of the check itself must not hide the others.
            result, seen = "FAIL", f"{type(error).__name__}: {error}"
        rows.append((name, case, result, time.monotonic() - began, seen))
        print(f"k8s/cluster: {result}: {name}: {seen}", flush=True)
        write_report(facts)
    counts = {result: sum(row[2] == result for row in rows) for result in ("pass", "FAIL", "not run")}
    print(f"k8s/cluster: {counts['pass']} of {len(rows)} checks passed, {counts['FAIL']} failed, {counts['not run']} not run; report: {report_file}")
    return 1 if counts["FAIL"] else 0


raise SystemExit(main())
