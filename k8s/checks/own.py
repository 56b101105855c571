"""Checks that linters cannot do, because they need the program or several files.

    own.py rules RENDERED.yaml FOLDER     write rules and their tests for promtool
    own.py check TIDEMARK RENDERED_DIR    all checks

Prints every problem with its location. Exits with 1 if there is any.
"""

import base64
import contextlib
import json
import math
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request

import yaml

OVERLAYS = ("dev", "prod", "prod-open", "prod-tls", "prod-monitoring")
METRIC = re.compile(r"\btidemark_[a-z_]+\b")
MATCHERS = re.compile(r"(tidemark_[a-z_]+)\{([^}]*)\}")
MATCHER = re.compile(r'([a-z_]+)(!~|=~|!=|=)"([^"]*)"')
# Labels that Prometheus or Kubernetes adds, not the server.
OUTSIDE_LABELS = {"pod", "namespace", "job", "le"}
# Values for the variables of Grafana.
GRAFANA = {"$__rate_interval": "1m", "$pod": ".*"}
# A server on a busy machine may take this long to start.
START_SECONDS = 60
# gRPC resolves a DNS name at most once in this time.
DNS_SECONDS = 30
# A hung process must be replaced within this time.
HANG_SECONDS = 45
# preStop, where it is not measured.
PAUSE_SECONDS = 5
GRPC_CODES = {
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
}  # fmt: skip

problems = []


def want(holds, text):
    if not holds:
        problems.append(text)


def seconds(text):
    value, unit = re.fullmatch(r"([0-9.]+)(ms|s|m)", text).groups()
    return float(value) * {"ms": 0.001, "s": 1, "m": 60}[unit]


def rendered(folder, overlay):
    with open(pathlib.Path(folder) / f"{overlay}.yaml") as file:
        return [document for document in yaml.safe_load_all(file) if document]


def one(documents, kind, name="tidemark"):
    found = [d for d in documents if d["kind"] == kind and d["metadata"]["name"].startswith(name)]
    if not found:
        raise SystemExit(f"no {kind} {name}")
    return found[0]


def container(documents):
    return one(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]


# Fields of the pod that variables may refer to.
POD_FIELDS = {"metadata.namespace": lambda deployment: deployment["metadata"]["namespace"]}


def environment(documents):
    """The environment as the kubelet makes it: $(NAME) is a variable further up in the list."""
    deployment, env = one(documents, "Deployment"), {}
    for variable in container(documents)["env"]:
        name = variable["name"]
        if field := variable.get("valueFrom", {}).get("fieldRef"):
            env[name] = POD_FIELDS[field["fieldPath"]](deployment)
        if "value" not in variable:
            continue
        env[name] = re.sub(r"\$\((\w+)\)", lambda found: env.get(found[1], found[0]), variable["value"])
        want("$(" not in env[name], f"{name} refers to a variable that is not further up: {variable['value']}")
    return env


def addresses(documents, overlay):
    """The contents of the Secret: the overlay's own, or the example."""
    for document in documents:
        if document["kind"] == "Secret":
            return base64.b64decode(document["data"]["tidemark.toml"]).decode()
    return pathlib.Path("k8s/overlays/prod/tidemark.toml.example").read_text()


def settings(tidemark, documents, overlay):
    """The settings as the program reads them in the pod's environment."""
    env = environment(documents)
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(addresses(documents, overlay))
        file.flush()
        # In the pod the program finds this limit by its cgroup, and rejects settings
        # that do not fit into it.
        limit = container(documents)["resources"]["limits"]["memory"] + "B"
        asked = subprocess.run(
            [tidemark, *container(documents)["args"], "--print-config"],
            env={"TIDEMARK_MEMORY_LIMIT": limit, **env, "TIDEMARK_CONFIG": file.name},
            capture_output=True,
            text=True,
        )
        want(asked.returncode == 0, f"{overlay}: invalid settings: {asked.stderr}")
        lines = [re.match(r"(\S+) = .* # (.*)", line) for line in asked.stdout.splitlines()]
        values = tomllib.loads(asked.stdout)
        told = {line[1]: (str(values[line[1]]), line[2]) for line in lines if line}
        for name in ("mongodb-uri", "redis-url"):
            want(told.get(name, ("", ""))[1] == file.name, f"{overlay}: {name} does not come from the Secret")
    for variable in env:
        if variable.startswith("TIDEMARK_") and variable != "TIDEMARK_CONFIG":
            name = variable.removeprefix("TIDEMARK_").lower().replace("_", "-")
            want(told.get(name, ("", ""))[1] == "environment", f"{overlay}: {variable} is not a setting")
    return {name: value for name, (value, _) in told.items()}


def config_variable(tidemark, documents, overlay):
    usage = subprocess.run([tidemark, "serve", "--help"], capture_output=True, text=True).stdout
    want("TIDEMARK_CONFIG" in usage, f"{overlay}: `serve` does not know TIDEMARK_CONFIG")
    mounts = [mount["mountPath"] for mount in container(documents)["volumeMounts"]]
    config = environment(documents)["TIDEMARK_CONFIG"]
    want(os.path.dirname(config) in mounts, f"{overlay}: {config} is not mounted")


def certificate(documents, overlay):
    """The TLS files are in a mounted volume, named as in a `kubernetes.io/tls` Secret."""
    mounts = [mount["mountPath"] for mount in container(documents)["volumeMounts"]]
    for variable, file in (("TIDEMARK_TLS_CERT", "tls.crt"), ("TIDEMARK_TLS_KEY", "tls.key")):
        folder, name = os.path.split(environment(documents)[variable])
        want(folder in mounts and name == file, f"{overlay}: {variable} is not mounted")
    for service in (d for d in documents if d["kind"] == "Service"):
        plain = [port for port in service["spec"]["ports"] if port.get("appProtocol") == "kubernetes.io/h2c"]
        want(not plain, f"{overlay}: Service {service['metadata']['name']} has appProtocol h2c despite TLS")


def issuer_keys(documents, overlay):
    """The issuer's keys are in a mounted ConfigMap, and callers authenticate."""
    env = environment(documents)
    mounts = {mount["mountPath"]: mount["name"] for mount in container(documents)["volumeMounts"]}
    folder = os.path.dirname(env["TIDEMARK_JWT_JWKS_FILE"])
    want(folder in mounts, f"{overlay}: TIDEMARK_JWT_JWKS_FILE is not mounted")
    volumes = one(documents, "Deployment")["spec"]["template"]["spec"]["volumes"]
    maps = {volume["name"] for volume in volumes if "configMap" in volume}
    want(mounts.get(folder) in maps, f"{overlay}: {folder} is not a ConfigMap")
    want(env["TIDEMARK_AUTH"] == "jwt" and env["TIDEMARK_REFLECTION"] != "on", f"{overlay}: the port is open")


def grace(tidemark, documents, told, overlay):
    program, *arguments = container(documents)["lifecycle"]["preStop"]["exec"]["command"]
    began = time.monotonic()
    # Run the hook as the kubelet does, and measure it.
    ended = subprocess.run([tidemark, *arguments])
    pause = time.monotonic() - began
    want(program == "/tidemark" and ended.returncode == 0, f"{overlay}: preStop fails")
    drain = seconds(told["drain-timeout"])
    limit = one(documents, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    want(pause >= 3, f"{overlay}: preStop takes {pause:.1f} s: too short for endpoints to propagate")
    want(limit > pause + drain, f"{overlay}: grace {limit} s is not above preStop {pause:.1f} s + drain {drain} s")
    rollout(documents, pause, overlay)
    liveness = container(documents)["livenessProbe"]
    worst = liveness["periodSeconds"] * (1 + liveness["failureThreshold"]) + liveness["terminationGracePeriodSeconds"]
    want(liveness["timeoutSeconds"] <= liveness["periodSeconds"], f"{overlay}: liveness probes may overlap")
    want(worst < HANG_SECONDS, f"{overlay}: a hung process is replaced after up to {worst} s")


def rollout(documents, pause, overlay):
    """No rollout may replace all pods that a client knows before it resolves the name again."""
    spec = one(documents, "Deployment")["spec"]
    scaler = one(documents, "HorizontalPodAutoscaler")["spec"]
    surge = int(spec["strategy"]["rollingUpdate"]["maxSurge"].removesuffix("%"))
    for replicas in range(scaler["minReplicas"], scaler["maxReplicas"] + 1):
        rounds = math.ceil(replicas / math.ceil(replicas * surge / 100))
        took = rounds * spec["minReadySeconds"] + pause
        want(
            took > DNS_SECONDS,
            f"{overlay}: a rollout of {replicas} replicas may take {took:.0f} s only: {rounds} rounds of"
            f" minReadySeconds and preStop must exceed gRPC's DNS interval of {DNS_SECONDS} s",
        )


def default_protocols(documents, overlay):
    """Ports without `protocol`, and empty lists, make `kubectl diff` report a change after each apply."""
    for policy in (d for d in documents if d["kind"] == "NetworkPolicy"):
        empty = [field for field in ("ingress", "egress") if policy["spec"].get(field) == []]
        want(not empty, f"{overlay}: NetworkPolicy {policy['metadata']['name']}: {empty} is an empty list")
        rules = policy["spec"].get("ingress", []) + policy["spec"].get("egress", [])
        for port in (port for rule in rules for port in rule.get("ports", [])):
            want("protocol" in port, f"{overlay}: NetworkPolicy {policy['metadata']['name']}: {port} has no protocol")


def built_in(documents, overlay):
    """The overlay applies to a cluster without any custom resource definition."""
    for document in documents:
        group = document["apiVersion"].rpartition("/")[0]
        known = "." not in group or group.endswith(".k8s.io")
        want(known, f"{overlay}: {document['kind']} needs a custom resource definition")


def ports(documents, told, overlay):
    addresses = [told[name] for name in ("listen", "metrics-listen", "health-listen")]
    listening = {address.rsplit(":", 1)[1] for address in addresses if address != "off"}
    named = {port["name"]: port["containerPort"] for port in container(documents)["ports"]}
    want({str(port) for port in named.values()} == listening, f"{overlay}: ports {named}, but it listens on {listening}")
    labels = one(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for service in (d for d in documents if d["kind"] == "Service" and "tidemark" in d["metadata"]["name"]):
        name = service["metadata"]["name"]
        want(service["spec"]["selector"].items() <= labels.items(), f"{overlay}: Service {name} selects nothing")
        for port in service["spec"]["ports"]:
            want(port["targetPort"] in named, f"{overlay}: Service {name}: no port {port['targetPort']}")


def open_ports(documents, told, overlay):
    """The NetworkPolicy opens the ports of calls and metrics, and not that of health checks."""
    rules = one(documents, "NetworkPolicy")["spec"]["ingress"]
    opened = {str(port["port"]) for rule in rules for port in rule["ports"]}
    wanted = {told[name].rsplit(":", 1)[1] for name in ("listen", "metrics-listen")}
    want(opened == wanted, f"{overlay}: the NetworkPolicy opens {opened}, but callers and Prometheus need {wanted}")
    want(all(rule.get("from") for rule in rules), f"{overlay}: the NetworkPolicy opens a port to everyone")


def monitored(documents):
    """The kinds of the Prometheus operator have no schema here, so this checks their fields."""
    monitor = one(documents, "ServiceMonitor")
    selected = [
        d
        for d in documents
        if d["kind"] == "Service"
        and monitor["spec"]["selector"]["matchLabels"].items() <= d["metadata"]["labels"].items()
    ]
    want(len(selected) == 1, f"the ServiceMonitor selects {len(selected)} Services: each replica is scraped that many times")
    for endpoint in monitor["spec"]["endpoints"]:
        names = {port["name"] for service in selected for port in service["spec"]["ports"]}
        want(endpoint["port"] in names, f"the ServiceMonitor's port {endpoint['port']} is not in its Service")
        want(set(endpoint) <= {"port", "path", "interval", "scrapeTimeout"}, f"unknown fields: {endpoint}")
        want(seconds(endpoint["scrapeTimeout"]) < seconds(endpoint["interval"]), "scrapeTimeout is not below interval")
    want(set(monitor["spec"]) == {"selector", "endpoints"}, f"unknown fields: {set(monitor['spec'])}")
    want(set(one(documents, "PrometheusRule")["spec"]) == {"groups"}, "unknown fields in the PrometheusRule")


def crate():
    text = pathlib.Path("Cargo.toml").read_text()
    return {key: re.search(rf'^{key} = "(.*)"', text, re.M)[1] for key in ("version", "rust-version")}


def versions(all_documents):
    version, rust = crate()["version"], crate()["rust-version"]
    for overlay, documents in all_documents.items():
        image = container(documents)["image"]
        want(image.endswith(f":{version}"), f"{overlay}: image {image}, but the crate has version {version}")
    services = yaml.safe_load(pathlib.Path("compose.yaml").read_text())["services"]
    for name in (name for name in services if name.startswith("tidemark-")):
        image = services[name]["image"]
        want(image == f"tidemark:{version}", f"compose.yaml: image {image}, but the crate has version {version}")
    dockerfile = pathlib.Path("Dockerfile").read_text()
    toolchain = re.search(r'channel = "(.*)"', pathlib.Path("rust-toolchain.toml").read_text())[1]
    want(toolchain.startswith(rust), f"rust-toolchain.toml has {toolchain}, Cargo.toml {rust}")
    want(f"FROM rust:{toolchain}-" in dockerfile, f"the Dockerfile does not build with Rust {toolchain}")
    for overlay, documents in all_documents.items():
        user = one(documents, "Deployment")["spec"]["template"]["spec"]["securityContext"]["runAsUser"]
        want(f"USER {user}:{user}" in dockerfile, f"{overlay}: the image does not run as user {user}")


def composed(tidemark):
    """The program accepts its command line in compose.yaml."""
    services = yaml.safe_load(pathlib.Path("compose.yaml").read_text())["services"]
    ours = {name: service for name, service in services.items() if name.startswith("tidemark-")}
    want(ours, "compose.yaml starts no tidemark")
    for name, service in ours.items():
        env = {key: str(value) for key, value in service.get("environment", {}).items()}
        asked = subprocess.run([tidemark, *service["command"], "--print-config"], env=env, capture_output=True, text=True)
        want(asked.returncode == 0, f"compose.yaml: {name}: {asked.stderr}")


def alerts(documents):
    groups = one(documents, "PrometheusRule")["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels():
    board = json.loads(pathlib.Path("k8s/dashboard.json").read_text())
    numbers = [panel["id"] for panel in board["panels"]]
    want(len(numbers) == len(set(numbers)), "dashboard: two panels have the same id")
    for panel in board["panels"]:
        if panel["type"] == "row":
            continue
        queries = [target.get("expr", "") for target in panel.get("targets", [])]
        want(queries and all(queries), f"dashboard: panel {panel['title']!r} has no query")
        want(panel.get("description"), f"dashboard: panel {panel['title']!r} has no description")
        for query in queries:
            for word, value in GRAFANA.items():
                query = query.replace(word, value)
            want("$" not in query, f"dashboard: {query} has an unknown variable")
            yield f"panel {panel['title']!r}", query


def documented(documents):
    page = pathlib.Path("docs/operations.md").read_text()
    for rule in alerts(documents):
        want(f"`{rule['alert']}`" in page, f"docs/operations.md has no entry for {rule['alert']}")
        want(rule["annotations"].get("summary"), f"{rule['alert']} has no summary")
        anchor = rule["alert"].lower()
        url = rule["annotations"].get("runbook_url", "")
        want(url.endswith(f"docs/operations.md#{anchor}"), f"{rule['alert']}: runbook_url is {url!r}")
        anchors = f'<a id="{anchor}">' in page or re.search(rf"^#+ `?{rule['alert']}`?$", page, re.M)
        want(anchors, f"docs/operations.md has no anchor #{anchor}")
        want(rule["labels"].get("severity") in ("page", "ticket"), f"{rule['alert']} has no severity")
    known = {rule["alert"] for rule in alerts(documents)}
    for name in re.findall(r"`(Tidemark[A-Z]\w+)`", page):
        want(name in known, f"docs/operations.md names {name}, which is not an alert")


# Where k8s/check renders the chart with all values set.
CHART_NAMESPACE = "todos"
# Labels that Helm adds.
HELM_LABELS = ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart")


def comparable(documents):
    """Manifests by kind and name, without what only one of Helm and kustomize has."""
    found = {}
    for document in documents:
        # Helm does not create namespaces: `helm install --create-namespace` does.
        if document["kind"] == "Namespace":
            continue
        metadata = document["metadata"]
        for label in HELM_LABELS:
            metadata["labels"].pop(label, None)
        notes = metadata.get("annotations", {})
        metadata["annotations"] = {key: text for key, text in notes.items() if not key.startswith("checkov.io/")}
        found[document["kind"], metadata["name"]] = document
    return found


def differences(here, there, path=""):
    """Paths at which two values differ. The order of named items does not count."""
    if isinstance(here, dict) and isinstance(there, dict):
        for key in sorted({*here, *there}):
            yield from differences(here.get(key), there.get(key), f"{path}.{key}")
    elif isinstance(here, list) and isinstance(there, list) and len(here) == len(there):
        if all(isinstance(item, dict) and "name" in item for item in here + there):
            here, there = ({item["name"]: item for item in items} for items in (here, there))
            yield from differences(here, there, path)
        else:
            for number, pair in enumerate(zip(here, there)):
                yield from differences(*pair, f"{path}[{number}]")
    elif here != there:
        yield f"{path}: {here!r} and {there!r}"


def chart_equals_overlay(folder, overlay):
    chart = comparable(rendered(folder, f"chart-{overlay}"))
    kustomize = comparable(rendered(folder, overlay))
    for kind, name in sorted({*chart, *kustomize}):
        for difference in differences(chart.get((kind, name)), kustomize.get((kind, name))):
            problems.append(f"chart and overlay {overlay}: {kind} {name}{difference}")


def chart_values(folder):
    """Every value of the chart has its effect: k8s/checks/chart-values.yaml sets them all."""
    documents = rendered(folder, "chart-all")
    values = yaml.safe_load(pathlib.Path("k8s/checks/chart-values.yaml").read_text())
    defaults = yaml.safe_load(pathlib.Path("k8s/chart/values.yaml").read_text())
    want(set(values) == set(defaults), "k8s/checks/chart-values.yaml does not set every value")
    pod, env = one(documents, "Deployment")["spec"]["template"], environment(documents)
    metadata, spec, main = pod["metadata"], pod["spec"], container(documents)
    secrets = [volume["secret"]["secretName"] for volume in spec["volumes"] if "secret" in volume]
    maps = [volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume]
    scaler = one(documents, "HorizontalPodAutoscaler")["spec"]
    secret = one(documents, "Secret", "where")
    alert = alerts(documents)[0]
    policy = one(documents, "NetworkPolicy")["spec"]
    scraper = policy["ingress"][-1]["from"][0]["namespaceSelector"]["matchLabels"]
    effects = {
        "image": main["image"] == f"registry.example.org/todos:9.9.9@{values['image']['digest']}" and main["imagePullPolicy"] == "IfNotPresent",
        "imagePullSecrets": spec["imagePullSecrets"] == values["imagePullSecrets"],
        "addresses": base64.b64decode(secret["data"]["tidemark.toml"]).decode() == values["addresses"]["toml"]
        and len(metadata["annotations"]["tidemark.dev/addresses"]) == 64,
        "settings": env["TIDEMARK_NEAR_CAPACITY"] == "1GiB" and env["TIDEMARK_MAX_ORIGIN_LOADS"] == "1000000",
        "env": [main["env"].count(variable) for variable in values["env"]] == [1, 1],
        "volumes": values["volumes"][0] in spec["volumes"],
        "volumeMounts": values["volumeMounts"][0] in main["volumeMounts"],
        "terminationGracePeriodSeconds": spec["terminationGracePeriodSeconds"]
        > PAUSE_SECONDS + seconds(values["settings"]["drain-timeout"]),
        "resources": main["resources"]["limits"]["memory"] == "3Gi" and main["resources"]["limits"]["cpu"] == "2",
        "autoscaling": (scaler["minReplicas"], scaler["maxReplicas"]) == (4, 20),
        "tls": secrets == ["where", "certificate", "keys"] and env["TIDEMARK_TLS_CLIENT_CA"] == "/etc/tidemark-tls/ca.crt",
        "auth": maps == ["keys"] and env["TIDEMARK_AUTH"] == "jwt"
        and env["TIDEMARK_ADMIN"] == f"system:serviceaccount:{CHART_NAMESPACE}:tidemark-admin",
        "monitoring": alert["annotations"].get("runbook_url")
        == f"{values['monitoring']['runbookURL']}#{alert['alert'].lower()}"
        and all(one(documents, kind)["metadata"]["labels"]["release"] == "stack" for kind in ("ServiceMonitor", "PrometheusRule")),
        "networkPolicy": scraper == {"kubernetes.io/metadata.name": "observability"}
        and {6380, 27016, 27017} <= {port["port"] for port in policy["egress"][-1]["ports"]},
        "serviceAccount": one(documents, "ServiceAccount")["metadata"]["annotations"] == values["serviceAccount"]["annotations"],
        "podAnnotations": values["podAnnotations"].items() <= metadata["annotations"].items(),
        "podLabels": values["podLabels"].items() <= metadata["labels"].items(),
        "nodeSelector": spec["nodeSelector"] == values["nodeSelector"],
        "affinity": spec["affinity"] == values["affinity"],
        "tolerations": spec["tolerations"] == values["tolerations"],
        "priorityClassName": spec["priorityClassName"] == values["priorityClassName"],
    }
    want(set(effects) == set(defaults), "own.py does not check every value of the chart")
    for name, holds in effects.items():
        want(holds, f"chart: the value {name} has no effect")
    elsewhere = {document["metadata"]["namespace"] for document in documents} - {CHART_NAMESPACE}
    want(not elsewhere, f"chart: manifests for the namespaces {elsewhere}")
    names = [variable["name"] for variable in main["env"]]
    want(len(names) == len(set(names)), f"chart: a variable is set twice: {names}")
    version = crate()["version"]
    about = yaml.safe_load(pathlib.Path("k8s/chart/Chart.yaml").read_text())
    want(about["version"] == version and about["appVersion"] == version, f"Chart.yaml: the crate has version {version}")


def free_port():
    """Below the ports of outgoing connections, one of which could take it before the server does."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def running(command, **more):
    """A process that is stopped at the end in any case."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def read(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def eventually(what, look):
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if found := look():
                return found
        time.sleep(0.1)
    raise SystemExit(f"{what}: not within {START_SECONDS} s")


def probe_one(address, service):
    command = ["grpc-health-probe", f"-addr={address}", f"-service={service}", "-connect-timeout=5s", "-rpc-timeout=5s"]
    return subprocess.run(command, capture_output=True).returncode == 0


def probes(documents, address, overlay):
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container(documents)[kind]["grpc"]
        name = probe["service"]
        want(name == kind.removesuffix("Probe"), f"{overlay}: {kind} asks for {name}")
        eventually(f"{overlay}: {kind} asks for {name!r}, which", lambda: probe_one(address, name))
        env = environment(documents)
        # The kubelet does not support TLS.
        listen = "TIDEMARK_HEALTH_LISTEN" if "TIDEMARK_TLS_CERT" in env else "TIDEMARK_LISTEN"
        want(str(probe["port"]) == env[listen].rsplit(":", 1)[1], f"{overlay}: {kind}: port")
    want(not probe_one(address, "no-such-name"), "the probe succeeds for an unknown service name")


def exported(text):
    """Series of the server: {name: {label: values}}. Each part of a histogram is a series."""
    series = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, labels = re.match(r"([a-z_]+)(?:\{(.*?)\})? ", line).groups()
        known = series.setdefault(name, {})
        for label, _, value in MATCHER.findall(labels or ""):
            known.setdefault(label, set()).add(value)
    return series


def code_values(label):
    """Values that a series of calls may have. A series exists only after such a call."""
    if label == "code":
        return {*GRPC_CODES, "other"}
    proto = pathlib.Path("proto/todo/v1").glob("*.proto")
    return {*re.findall(r"\brpc (\w+)\(", "".join(file.read_text() for file in proto)), "other"}


def query_fits(where, query, series):
    for name in METRIC.findall(query):
        want(name in series, f"{where}: {name} is not exported")
    for name, matchers in MATCHERS.findall(query):
        for label, _, value in MATCHER.findall(matchers):
            if label in OUTSIDE_LABELS or name not in series:
                continue
            values = series[name].get(label)
            want(values is not None, f"{where}: {name} has no label {label}")
            if label in ("code", "call"):
                values = code_values(label)
            for part in value.split("|"):
                want(part in (values or set()), f"{where}: {name} never has {label}={part!r}, but {sorted(values or [])}")


def asked_of_prometheus(folder, metrics, queries):
    """Evaluate every query in a real Prometheus that scrapes the real server."""
    port = free_port()
    config = pathlib.Path(folder) / "prometheus.yaml"
    target = {"static_configs": [{"targets": [metrics]}], "job_name": "tidemark"}
    config.write_text(json.dumps({"global": {"scrape_interval": "500ms"}, "scrape_configs": [target]}))
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb", f"--web.listen-address=127.0.0.1:{port}"]

    def ask(query):
        url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
        try:
            return json.loads(read(url))["data"]["result"]
        except urllib.error.HTTPError as error:
            if error.code in (400, 422):
                problems.append(f"Prometheus rejects {query}: {error.read().decode()}")
                return []
            raise

    with running(command):
        eventually("Prometheus has scraped the server", lambda: ask("count_over_time(tidemark_watchers[1m]) > 2"))
        for where, query in queries:
            ask(query)
            # A comparison that is false returns nothing, which is fine. A name
            # without any series is an error.
            for name in set(METRIC.findall(query)):
                want(ask(f"count({name})"), f"{where}: Prometheus has no {name}")


def served(tidemark, all_documents):
    production = all_documents["prod-monitoring"]
    queries = [(rule["alert"], rule["expr"]) for rule in alerts(production)] + list(panels())
    with tempfile.TemporaryDirectory() as folder:
        listen, metrics = (f"127.0.0.1:{free_port()}" for _ in range(2))
        command = [tidemark, "serve", "--data-dir", f"{folder}/data", "--listen", listen, "--metrics-listen", metrics]
        with running(command):
            for overlay, documents in all_documents.items():
                probes(documents, listen, overlay)
            text = eventually("metrics", lambda: read(f"http://{metrics}/metrics"))
            series = exported(text)
            want(len(series) > 20, "20 series or fewer are exported")
            for where, query in queries:
                query_fits(where, query, series)
            shown = set(METRIC.findall(" ".join(query for _, query in panels())))
            for name in series:
                # The dashboard shows latencies as percentiles, not sums.
                if name.startswith("tidemark_") and not name.endswith("_sum"):
                    want(name in shown, f"the dashboard does not show {name}")
            if any(os.access(os.path.join(p, "prometheus"), os.X_OK) for p in os.environ["PATH"].split(":")):
                asked_of_prometheus(folder, metrics, queries)
            else:
                print("NOT RUN: the queries by a real Prometheus, because it is not installed")


def check(tidemark, folder):
    all_documents = {overlay: rendered(folder, overlay) for overlay in OVERLAYS}
    for overlay, documents in all_documents.items():
        told = settings(tidemark, documents, overlay)
        config_variable(tidemark, documents, overlay)
        grace(tidemark, documents, told, overlay)
        ports(documents, told, overlay)
        open_ports(documents, told, overlay)
        default_protocols(documents, overlay)
    for overlay in ("prod", "prod-tls", "prod-monitoring"):
        certificate(all_documents[overlay], overlay)
    for overlay in ("prod", "prod-monitoring"):
        issuer_keys(all_documents[overlay], overlay)
    for overlay in ("dev", "prod", "prod-open", "prod-tls"):
        built_in(all_documents[overlay], overlay)
    for overlay in OVERLAYS[1:]:
        chart_equals_overlay(folder, overlay)
    chart_values(folder)
    rollout(rendered(folder, "chart-single"), PAUSE_SECONDS, "chart with one replica")
    monitored(all_documents["prod-monitoring"])
    versions(all_documents)
    composed(tidemark)
    documented(all_documents["prod-monitoring"])
    served(tidemark, all_documents)


def promtool_test(test, rules):
    """A test from k8s/checks/alerts.yaml. Alerts that it does not name must not fire."""
    expected = []
    for rule in rules:
        fires = rule["alert"] in test["fires"]
        labels = {**rule["labels"], **test["fires"].get(rule["alert"], {})}
        alert = [{"exp_labels": labels}] if fires else []
        expected.append({"eval_time": test["at"], "alertname": rule["alert"], "exp_alerts": alert})
    series = [{**one_series, "values": str(one_series["values"])} for one_series in test["input_series"]]
    return {"name": test["name"], "interval": test["interval"], "input_series": series, "alert_rule_test": expected}


def rules_for_promtool(file, folder):
    folder = pathlib.Path(folder)
    documents = list(yaml.safe_load_all(pathlib.Path(file).read_text()))
    spec = one(documents, "PrometheusRule")["spec"]
    (folder / "rules.yaml").write_text(yaml.safe_dump(spec))
    rules = alerts(documents)
    # promtool would compare the texts too, including numbers.
    bare = [{key: value for key, value in rule.items() if key != "annotations"} for rule in rules]
    (folder / "bare.yaml").write_text(yaml.safe_dump({"groups": [{"name": "tidemark", "rules": bare}]}))
    tests = yaml.safe_load(pathlib.Path("k8s/checks/alerts.yaml").read_text())
    for rule in rules:
        want(any(rule["alert"] in test["fires"] for test in tests), f"{rule['alert']} fires in no test")
    (folder / "tests.yaml").write_text(
        yaml.safe_dump(
            {
                "rule_files": ["bare.yaml"],
                "evaluation_interval": "30s",
                "tests": [promtool_test(test, rules) for test in tests],
            }
        )
    )


if sys.argv[1] == "rules":
    rules_for_promtool(*sys.argv[2:4])
else:
    check(*sys.argv[2:4])
for problem in problems:
    print(f"k8s/checks/own.py: {problem}", file=sys.stderr)
raise SystemExit(1 if problems else 0)
