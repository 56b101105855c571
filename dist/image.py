#!/usr/bin/env python3
"""image.py PROGRAM TARGET VERSION FOLDER: writes the image with this static program
as an OCI archive, without a container engine. The same files as by the Dockerfile: the
program, certificate authorities (of this machine), a user, /data and /tmp.
"""

import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import sys
import tarfile

CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
USER = 65532


def add(archive, name, content=None, mode=0o644, owner=0):
    entry = tarfile.TarInfo(name)
    entry.mtime = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    entry.mode, entry.uid, entry.gid = mode, owner, owner
    if content is None:
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    else:
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))


def layer(program):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        add(archive, "tidemark", pathlib.Path(program).read_bytes(), 0o755)
        add(archive, "data", None, 0o755, USER)
        add(archive, "tmp", None, 0o1777)
        for folder in ("etc", "etc/ssl", "etc/ssl/certs"):
            add(archive, folder, None, 0o755)
        add(archive, "etc/passwd", f"nonroot:x:{USER}:{USER}:nonroot:/data:/none\n".encode())
        add(archive, "etc/group", f"nonroot:x:{USER}:\n".encode())
        found = next((path for path in CERTIFICATES if os.path.exists(path)), None)
        if found is None:
            sys.exit("image.py: this machine has no certificate authorities: install ca-certificates")
        add(archive, "etc/ssl/certs/ca-certificates.crt", pathlib.Path(found).read_bytes())
    return raw.getvalue()


def settings():
    """What the Dockerfile sets, so that both images start the same way."""
    text = pathlib.Path(__file__).resolve().parent.parent.joinpath("Dockerfile").read_text()
    variables = re.search(r"^ENV (.*?[^\\])$", text, re.MULTILINE | re.DOTALL)[1]
    return re.findall(r"[A-Z_]+=\S+", variables)


def main():
    program, target, version, folder = sys.argv[1:]
    architecture = ARCHITECTURES[target.split("-")[0]]
    blobs = {}

    def blob(content, media_type):
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    raw = layer(program)
    packed = blob(gzip.compress(raw, 9, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip")
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {
            "User": f"{USER}:{USER}",
            "Env": settings(),
            "Entrypoint": ["/tidemark"],
            "Cmd": ["serve"],
            "ExposedPorts": {"50051/tcp": {}, "9464/tcp": {}},
            "Volumes": {"/data": {}},
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "tidemark",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.revision": os.environ.get("BUILD_REVISION", "unknown"),
                "org.opencontainers.image.licenses": "MIT",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(raw).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [packed],
    }
    entry = blob(json.dumps(manifest).encode(), manifest["mediaType"])
    entry["platform"] = {"architecture": architecture, "os": "linux"}
    entry["annotations"] = {
        "org.opencontainers.image.ref.name": version,
        "io.containerd.image.name": f"docker.io/library/tidemark:{version}",
    }
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry],
    }
    path = pathlib.Path(folder) / f"tidemark-{version}-{architecture}.oci.tar"
    with tarfile.open(path, mode="w") as archive:
        add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        add(archive, "index.json", json.dumps(index).encode())
        for name, content in sorted(blobs.items()):
            add(archive, name, content)
    print(f"image.py: {path}", file=sys.stderr)


main()
