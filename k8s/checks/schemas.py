"""Copies the JSON schemas of kubernetes-validate in the form that kubeconform reads.

Prints the oldest and the newest version. The schemas refer to their definitions
by URL; kubeconform needs a local file.

    schemas.py FOLDER
"""

import json
import pathlib
import sys

import kubernetes_validate

SUFFIX = "-local-strict"
MADE_AT = "/api/_definitions.json"


def versions(shipped):
    found = [path.name[1 : -len(SUFFIX)] for path in shipped.glob(f"v*{SUFFIX}")]
    found.sort(key=lambda version: [int(part) for part in version.split(".")])
    return [found[0], found[-1]]


def main(folder):
    shipped = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    for version in versions(shipped):
        target = pathlib.Path(folder) / version
        if not (target / "complete").exists():
            target.mkdir(parents=True, exist_ok=True)
            for source in (shipped / f"v{version}{SUFFIX}").glob("*.json"):
                schema = json.loads(source.read_text().replace(MADE_AT, "_definitions.json"))
                schema.pop("$id", None)
                (target / source.name).write_text(json.dumps(schema))
            (target / "complete").touch()
        print(version)


main(sys.argv[1])
