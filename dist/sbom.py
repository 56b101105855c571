#!/usr/bin/env python3
"""The dependencies of the program, from `cargo metadata`.

sbom.py sbom                bill of materials, CycloneDX 1.5, as JSON
sbom.py licences [TARGET]   the licence texts of all dependencies

Dependencies for tests and benchmarks are not in the program, and are left out.
"""

import datetime
import json
import os
import pathlib
import subprocess
import sys

TEXTS = ("license", "licence", "copying", "notice", "unlicense")


def packages(target=None):
    """The root package, and those that it is built from, by name and version."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    if target:
        command += ["--filter-platform", target]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    by_id = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = metadata["resolve"]["root"]
    edges, waiting = {}, [root]
    while waiting:
        here = waiting.pop()
        if here in edges:
            continue
        edges[here] = [
            dep["pkg"]
            for dep in nodes[here]["deps"]
            if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])
        ]
        waiting += edges[here]
    built = compiled(target)
    edges = {
        key: [to for to in targets if (by_id[to]["name"], by_id[to]["version"]) in built]
        for key, targets in edges.items()
        if key == root or (by_id[key]["name"], by_id[key]["version"]) in built
    }
    order = sorted((key for key in edges if key != root), key=lambda key: (by_id[key]["name"], by_id[key]["version"]))
    return by_id[root], [by_id[key] for key in order], {by_id[key]["id"]: edges[key] for key in edges}, by_id


def compiled(target):
    """Name and version of what is compiled: `cargo metadata` also has what features leave out."""
    command = ["cargo", "tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"]
    lines = subprocess.run(command + ["--target", target or "all"], check=True, capture_output=True, text=True).stdout
    words = (line.split() for line in lines.splitlines() if line.strip())
    return {(name, version.removeprefix("v")) for name, version, *_ in words}


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, kind="library"):
    entry = {
        "type": kind,
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "purl": reference(package),
    }
    if package.get("license"):
        entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    return entry


def sbom():
    root, dependencies, edges, by_id = packages()
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).isoformat().replace("+00:00", "Z"),
            "component": component(root, "application"),
        },
        "components": [component(package) for package in dependencies],
        "dependencies": [
            {"ref": reference(by_id[key]), "dependsOn": sorted({reference(by_id[to]) for to in targets})}
            for key, targets in sorted(edges.items())
        ],
    }


def licence_files(package):
    folder = pathlib.Path(package["manifest_path"]).parent
    return sorted(file for file in folder.iterdir() if file.is_file() and file.name.lower().startswith(TEXTS))


def same_text(package, texts):
    """Where else in the list the text of this package's licence is."""
    for licence, name in (("Apache-2.0", "LICENSE-APACHE"), ("MIT", "LICENSE-MIT")):
        if licence in (package.get("license") or ""):
            found = next((other for other, files in texts.items() if any(file.name == name for file in files)), None)
            if found:
                return f"The text of {licence} is under {found}."
    return "Its licence is not in this list."


def licences(target):
    _, dependencies, _, _ = packages(target)
    lacking = []
    texts = {package["name"]: licence_files(package) for package in dependencies}
    for package in dependencies:
        files = texts[package["name"]]
        print(f"{'=' * 78}\n{package['name']} {package['version']} ({package.get('license') or 'see below'})\n{'=' * 78}")
        if not files:
            lacking.append(package["name"])
            print(f"No licence text in the package: {package.get('repository') or ''}")
            print(f"{same_text(package, texts)}\n")
        for file in files:
            print(file.read_text(errors="replace").strip() + "\n")
    if lacking:
        print(f"sbom.py: without a licence text: {', '.join(lacking)}", file=sys.stderr)


def main():
    match sys.argv[1:]:
        case ["sbom"]:
            print(json.dumps(sbom(), indent=1))
        case ["licences", *target] if len(target) <= 1:
            licences(target[0] if target else None)
        case _:
            sys.exit(__doc__)


main()
