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
# MongoDB's election and the start of its pod, on a busy machine.
MONGODB_SECONDS = 90
WAIT_SECONDS = 240

project, kubectl_command, report_file = sys.argv[1:4]
chosen = sys.argv[4:]
cgroup = os.environ.get("TIDEMARK_CLUSTER_CGROUP", "")
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

    def __init__(self, name, seconds, *arguments, text=None):
        self.name = name
        command = [kubectl_command, "exec", "-i", "-n", "clients", "client", "--", "/client", "load"]
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


def none_failed(loads):
    """All calls succeeded, and no watch has missed a change."""
    parts, well = [], True
    for load in loads:
        result = load.result()
        parts.append(f"{load.name}: {result['failed']} of {result['calls']}")
        if result["failed"]:
            well = False
            parts[-1] += f" {result['failures']} {result['errors'].splitlines()[:2]}"
        if watch := result.get("watch"):
            well = well and not watch["missing"] and not watch["resets"]
            parts[-1] += f" (watch: {watch['changes']} changes, resumed {watch['resumed']} times, {watch['resets']} resets"
            parts[-1] += f", missing: {watch['missing'] or 'none'})"
    detail = "failed " + "; ".join(parts)
    expect(well, detail)
    return detail


def three_clients(label, seconds, old=True):
    """Clients of all kinds: through the ClusterIP, and balancing, old and young."""
    loads = [Load(f"{label}-cluster-ip", seconds, "-mode", "plain", "-channels", "4", "-target", CLUSTER_IP)]
    loads.append(Load(f"{label}-old", seconds, "-watch"))
    if old:
        time.sleep(DNS_SECONDS + 5)
    loads.append(Load(f"{label}-young", seconds - (DNS_SECONDS + 5 if old else 0)))
    time.sleep(2)
    return loads


def container_pid(pod):
    """The program's pid on this machine, by its cgroup."""
    uid = pod["metadata"]["uid"]
    for found in pathlib.Path("/sys/fs/cgroup").glob(f"*/{cgroup}/kubepods/**/pod{uid}/*/cgroup.procs"):
        for pid in found.read_text().split():
            program = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
            if program != "pause":
                return int(pid), found.parent
    raise Failed(f"no process of {pod['metadata']['name']} found")


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
    for overlay in ("prod", "prod-tls"):
        done = kubectl("apply", "-k", f"k8s/overlays/{overlay}", "--dry-run=server", check=False)
        expect(done.returncode == 0, f"{overlay}: {done.stderr[:300]}")
    return "prod and prod-tls exit 0 without the Prometheus operator (server-side dry run)"


def probes():
    expect(restarts() == 0, f"{restarts()} restarts")
    bad = [
        event["message"]
        for event in get("events")["items"]
        if event["reason"] == "Unhealthy" and "iveness" in event["message"]
    ]
    expect(not bad, f"liveness failed: {bad[:2]}")
    for pod in pods():
        status = pod["status"]["containerStatuses"][0]
        expect(status["started"] and status["ready"], f"{pod['metadata']['name']} is not ready")
    return "started, then ready; no liveness failure, no restart"


def policies():
    pod = pods()[0]["status"]["podIP"]
    mongodb = pods("mongodb")[0]["status"]["podIP"]
    redis = pods("redis")[0]["status"]["podIP"]
    service = get("service", "tidemark")["spec"]["clusterIP"]
    expected = {
        ("clients", "client"): {f"{service}:50051": "open", f"{pod}:50051": "open", f"{pod}:9464": "blocked",
                                f"{mongodb}:27017": "blocked", f"{redis}:6379": "blocked"},
        ("clients", "stranger"): {f"{service}:50051": "blocked", f"{pod}:50051": "blocked", f"{pod}:9464": "blocked",
                                  f"{mongodb}:27017": "blocked", f"{redis}:6379": "blocked"},
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
    return f"{count} pairs as written"


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


def mongod_cpu():
    is_local("this check")
    _, group = container_pid(pods("mongodb")[0])
    usage = pathlib.Path(str(group).replace("/sys/fs/cgroup/" + group.parts[4], "/sys/fs/cgroup/cpuacct"))
    probe = get("statefulset", "mongodb")["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
    expect("tcpSocket" in probe, f"the readiness probe is {probe}")
    before, began = int((usage / "cpuacct.usage").read_text()), time.monotonic()
    time.sleep(30)
    cores = (int((usage / "cpuacct.usage").read_text()) - before) / 1e9 / (time.monotonic() - began)
    return f"readiness by TCP, no process is started; mongod in all uses {cores:.3f} cores, with two replicas idle"


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
        expect(not result["watch"]["missing"], f"the watch misses {result['watch']['missing']}")
        down = three_clients("scale-down", 60, old=False)
        kubectl("-n", NAMESPACE, "scale", "deployment/tidemark", "--replicas=2")
        detail = none_failed(down)
        expect(share > 0.2, f"the new replica answers {share:.0%} of the last calls; scaling down: {detail}")
        return f"up: 0 of {result['calls']} failed, the new replica answers {share:.0%} of the last calls (connection age {AGE_SECONDS} s); down: {detail}"
    finally:
        kubectl("apply", "-k", "k8s/overlays/dev")


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
    expect(not result["watch"]["missing"], f"the watch misses {result['watch']['missing']}")
    expect(restarts() == before, "a replica was restarted")
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
    tags = [name for image in images for name in image["names"]]
    expect(any("tidemark:previous" in tag for tag in tags), "NOT RUN: the cache has no image of an earlier commit")
    current = get("deployment", "tidemark")["spec"]["template"]["spec"]["containers"][0]["image"]
    kubectl("-n", NAMESPACE, "set", "image", "deployment/tidemark", "tidemark=tidemark:previous")
    rolled_out()
    loads = three_clients("upgrade", 110, old=False)
    kubectl("-n", NAMESPACE, "set", "image", "deployment/tidemark", f"tidemark={current}")
    rolled_out()
    return none_failed(loads)


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
    made = kubectl("-n", NAMESPACE, "create", "secret", "tls", "tidemark-tls", f"--cert={files[0]}", f"--key={files[1]}",
                   "--dry-run=client", "-o", "yaml").stdout  # fmt: skip
    kubectl("apply", "-f", "-", text=made)


# prod-tls with the resources and the number of replicas of this small cluster.
SMALL_TLS = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../prod-tls]
images: [{name: registry.example.com/tidemark, newName: tidemark, newTag: "VERSION"}]
patches:
  - path: small.yaml
  - path: one-or-two.yaml
"""


def tls():
    with tempfile.TemporaryDirectory() as folder:
        old, new = certificate(folder, "old"), certificate(folder, "new")
        put_certificate(old)
        kubectl("-n", NAMESPACE, "create", "secret", "generic", "tidemark-addresses", "--from-file=k8s/overlays/dev/tidemark.toml")
        overlay = pathlib.Path(project, "k8s/overlays/small-tls")
        overlay.mkdir(exist_ok=True)
        # kustomize reads patches from the folder of the overlay only.
        for patch in ("small.yaml", "one-or-two.yaml"):
            (overlay / patch).write_text(pathlib.Path(project, "k8s/overlays/dev", patch).read_text())
        version = re.search(r'^version = "(.*)"', pathlib.Path(project, "Cargo.toml").read_text(), re.M)[1]
        (overlay / "kustomization.yaml").write_text(SMALL_TLS.replace("VERSION", version))
        kubectl("apply", "-k", "k8s/overlays/small-tls")
        rolled_out()
        ca = pathlib.Path(old[0]).read_text()
        both = [Load("tls", 15, "-ca", "-", text=ca), Load("tls-ip", 15, "-ca", "-", "-target", CLUSTER_IP, text=ca)]
        detail = none_failed(both)
        before = names(pods())
        put_certificate(new)
        ca = pathlib.Path(new[0]).read_text()

        def renewed():
            result = Load("tls-new", 1, "-ca", "-", text=ca).result()
            return result["failed"] == 0

        took = eventually("the new certificate", renewed)
        expect(names(pods()) == before and restarts() == 0, "the renewal restarted pods")
        return f"{detail}; a renewed certificate is in use after {took:.0f} s without a restart"


def memory():
    is_local("reading the memory of the pods")
    parts = []
    for pod in pods():
        _, group = container_pid(pod)
        base = pathlib.Path(str(group).replace("/sys/fs/cgroup/" + group.parts[4], "/sys/fs/cgroup/memory"))
        peak, limit = (int((base / f"memory.{name}_in_bytes").read_text()) >> 20 for name in ("max_usage", "limit"))
        expect(peak < limit, f"{pod['metadata']['name']} reached its limit of {limit} MiB")
        parts.append(f"{peak} of {limit} MiB")
    return "peaks after all checks: " + ", ".join(parts)


def delete():
    began = time.monotonic()
    kubectl("delete", "-k", "k8s/overlays/dev", "--ignore-not-found", "--wait=true")
    left = kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name").stdout
    expect(not left, f"left: {left}")
    return f"{time.monotonic() - began:.0f} s, nothing left"


CHECKS = [
    ("apply", "", "apply of the overlay dev", apply_dev),
    ("diff", "K5", "apply again", diff_after_apply),
    ("overlays", "K4", "prod and prod-tls on a bare cluster", overlays_apply),
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
    ("redis", "", "Redis pod deleted", redis_deleted),
    ("mongodb", "K8", "MongoDB pod deleted", mongodb_deleted),
    ("frozen", "K3", "process frozen", frozen),
    ("memory", "", "memory", memory),
    ("tls", "", "prod-tls with small resources, certificate renewed", tls),
    ("delete", "", "delete", delete),
]


def about():
    """Versions and circumstances, for the head of the report."""
    versions = json.loads(kubectl("version", "-o", "json").stdout)
    node = json.loads(kubectl("get", "nodes", "-o", "json").stdout)["items"][0]["status"]["nodeInfo"]
    facts = {
        "commit": os.environ.get("TIDEMARK_CLUSTER_COMMIT", "unknown"),
        "image": os.environ.get("TIDEMARK_CLUSTER_IMAGE", "unknown"),
        "Kubernetes": versions["serverVersion"]["gitVersion"],
        "container runtime": node["containerRuntimeVersion"],
        "kernel": node["kernelVersion"],
        "started": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "load average": " ".join(pathlib.Path("/proc/loadavg").read_text().split()[:3]),
    }
    return facts


def write_report(facts):
    lines = ["# Checks on a real Kubernetes", "", "Written by `k8s/cluster`. Cases K1 to K8 are faults that an earlier run found.", ""]
    lines += ["| | |", "| --- | --- |"] + [f"| {name} | {value} |" for name, value in facts.items()] + [""]
    lines += ["| check | case | result | seconds | seen |", "| --- | --- | --- | --- | --- |"]
    for name, case, result, took, seen in rows:
        lines.append(f"| {name} | {case} | {result} | {took:.0f} | {seen.replace('|', '/').replace(chr(10), ' ')} |")
    pathlib.Path(report_file).write_text("\n".join(lines) + "\n")


def main():
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
    failed = [row for row in rows if row[2] == "FAIL"]
    print(f"k8s/cluster: {len(rows) - len(failed)} of {len(rows)} checks without failure; report: {report_file}")
    return 1 if failed else 0


raise SystemExit(main())
