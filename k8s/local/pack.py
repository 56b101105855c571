"""Writes an OCI image archive with one layer.

    pack.py NAME:TAG FOLDER CONFIG TARGET

CONFIG is the `config` object of an image, as JSON.
"""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile


class Hashing:
    """A file object that also hashes what passes through."""

    def __init__(self, out):
        self.out, self.hash = out, hashlib.sha256()

    def write(self, data):
        self.hash.update(data)
        return self.out.write(data)

    def flush(self):
        pass


def described(media_type, data, **more):
    return {"mediaType": media_type, "digest": "sha256:" + hashlib.sha256(data).hexdigest(), "size": len(data), **more}


def main(name, folder, config, target):
    layer = target + ".layer"
    # Written in the opposite order of reading: tar, gzip, file.
    with open(layer, "wb") as file:
        packed = Hashing(file)
        with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as zipped:
            plain = Hashing(zipped)
            with tarfile.open(fileobj=plain, mode="w|") as tar:
                tar.add(folder, arcname=".")
    digest = "sha256:" + packed.hash.hexdigest()
    image = {
        "architecture": "amd64",
        "os": "linux",
        "config": json.loads(config),
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + plain.hash.hexdigest()]},
    }
    oci = "application/vnd.oci.image."
    image_data = json.dumps(image).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": oci + "manifest.v1+json",
        "config": described(oci + "config.v1+json", image_data),
        "layers": [{"mediaType": oci + "layer.v1.tar+gzip", "digest": digest, "size": os.path.getsize(layer)}],
    }
    manifest_data = json.dumps(manifest).encode()
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    index = {
        "schemaVersion": 2,
        "manifests": [described(oci + "manifest.v1+json", manifest_data, annotations=names)],
    }
    # An archive that is there is used: one that a killed run began must not be.
    with tarfile.open(target + ".part", "w") as tar:

        def put(path, data):
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))

        put("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        put("index.json", json.dumps(index).encode())
        for data in (image_data, manifest_data):
            put("blobs/sha256/" + hashlib.sha256(data).hexdigest(), data)
        tar.add(layer, "blobs/sha256/" + packed.hash.hexdigest())
    os.remove(layer)
    os.replace(target + ".part", target)


main(*sys.argv[1:5])
