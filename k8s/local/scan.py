"""Scans the image archive: size, user, and files that it must not contain.

    scan.py ARCHIVE

Prints one line about the image, or every problem, and then exits with 1.
"""

import gzip
import io
import json
import re
import sys
import tarfile

# The README promises this size, unpacked.
MAX_BYTES = 30_000_000
USER = "65532:65532"
# What the Dockerfile puts into it, and the folders that a container engine mounts.
EXPECTED = re.compile(
    r"(tidemark|data|tmp|run|dev|proc|sys"
    r"|etc(/(passwd|group|ssl(/certs(/ca-certificates\.crt)?)?|hosts|resolv\.conf|hostname))?)?"
)
SECRETS = [b"PRIVATE KEY-----\n", b"mongodb+srv://user", b"/root/.cargo/credentials"]

problems = []


def read(archive, name):
    return archive.extractfile(name).read()


def blob(archive, digest):
    return read(archive, "blobs/" + digest.replace(":", "/"))


def layers(archive, manifest):
    for layer in manifest["layers"]:
        data = blob(archive, layer["digest"])
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        yield tarfile.open(fileobj=io.BytesIO(data))


def main(path):
    with tarfile.open(path) as archive:
        index = json.loads(read(archive, "index.json"))
        manifest = json.loads(blob(archive, index["manifests"][0]["digest"]))
        config = json.loads(blob(archive, manifest["config"]["digest"]))["config"]
        packed = sum(layer["size"] for layer in manifest["layers"])
        total, program, data_owner = 0, 0, None
        for layer in layers(archive, manifest):
            for entry in layer:
                name = entry.name.strip("./")
                total += entry.size
                if not EXPECTED.fullmatch(name):
                    problems.append(f"unexpected file: {name}")
                if entry.mode & 0o6000:
                    problems.append(f"setuid or setgid: {name}")
                if name == "data":
                    data_owner = f"{entry.uid}:{entry.gid}"
                if name == "tidemark":
                    program = entry.size
                    content = layer.extractfile(entry).read()
                    problems.extend(f"the program contains {secret!r}" for secret in SECRETS if secret in content)
                    if b"/ld-linux" in content[:4096] or b"/ld-musl" in content[:4096]:
                        problems.append("the program is not static")
    if total > MAX_BYTES:
        problems.append(f"{total} bytes, above {MAX_BYTES}")
    if config.get("User") != USER:
        problems.append(f"user {config.get('User')}, not {USER}")
    if data_owner != USER:
        problems.append(f"/data belongs to {data_owner}")
    environment = dict(variable.split("=", 1) for variable in config.get("Env", []))
    if not environment.get("TIDEMARK_LISTEN", "").startswith("0.0.0.0:"):
        problems.append("TIDEMARK_LISTEN is not reachable from outside the container")
    if "/data" not in config.get("Volumes", {}):
        problems.append("/data is not a volume")
    if problems:
        print("\n".join(problems))
        return 1
    print(f"{total / 1e6:.1f} MB unpacked, {packed / 1e6:.1f} MB packed, program {program / 1e6:.1f} MB, static; user {USER}")
    return 0


raise SystemExit(main(sys.argv[1]))
