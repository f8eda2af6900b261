"""Images of one static program, as OCI archives: made without a base and without pulling anything."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

from tests.cluster.programs import path_of

PAUSE = "localhost/ytrain-pause:1"
PROBE = "localhost/ytrain-probe:1"


def write_archive(target: Path, image: str, program: str) -> Path:
    """An archive with `program` as /PROGRAM and as the entry point, for a user that is not root."""
    layer = layer_of(path_of(program), program)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [f"/{program}"], "User": "65532:65532", "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        "history": [{"created_by": "tests/cluster"}],
    }
    blobs = [layer, as_json(config)]
    manifest = as_json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe(blobs[1], "application/vnd.oci.image.config.v1+json"),
            "layers": [describe(layer, "application/vnd.oci.image.layer.v1.tar")],
        }
    )
    entry = describe(manifest, "application/vnd.oci.image.manifest.v1+json")
    entry["annotations"] = {"io.containerd.image.name": image}
    with tarfile.open(target, "w") as archive:
        add(archive, "oci-layout", as_json({"imageLayoutVersion": "1.0.0"}))
        add(archive, "index.json", as_json({"schemaVersion": 2, "manifests": [entry]}))
        for blob in (*blobs, manifest):
            add(archive, f"blobs/{digest(blob).replace(':', '/')}", blob)
    return target


def layer_of(program: Path, name: str) -> bytes:
    """A tar with the program, the same bytes whenever it is made."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        add(layer, name, program.read_bytes(), mode=0o755)
    return buffer.getvalue()


def add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    """Add a file."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def digest(content: bytes) -> str:
    """A blob's name."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def describe(content: bytes, media_type: str) -> dict[str, object]:
    """A descriptor of a blob."""
    return {"mediaType": media_type, "digest": digest(content), "size": len(content)}


def as_json(value: object) -> bytes:
    """JSON as a blob."""
    return json.dumps(value, sort_keys=True).encode()
