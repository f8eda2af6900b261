"""OCI archives, which containerd imports; and images of one static program, made without a base or a pull."""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.programs import path_of

OCI = "application/vnd.oci.image"
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
    with tarfile.open(target, "w") as archive:
        for path, content in frame(image, as_json(config), {digest(layer): len(layer)}).items():
            add(archive, path, content)
        add(archive, path_in(digest(layer)), layer)
    return target


def frame(image: str, config: bytes, layers: Mapping[str, int]) -> dict[str, bytes]:
    """An image's files but its layers, by their paths.

    Args:
        layers: sizes of layers that are not compressed, by digest, from the first to the last.
    """
    manifest = as_json(
        {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": describe(f"{OCI}.config.v1+json", digest(config), len(config)),
            "layers": [describe(f"{OCI}.layer.v1.tar", name, size) for name, size in layers.items()],
        }
    )
    entry = describe(f"{OCI}.manifest.v1+json", digest(manifest), len(manifest))
    entry["annotations"] = {"io.containerd.image.name": image}
    return {
        "oci-layout": as_json({"imageLayoutVersion": "1.0.0"}),
        "index.json": as_json({"schemaVersion": 2, "manifests": [entry]}),
        path_in(digest(config)): config,
        path_in(digest(manifest)): manifest,
    }


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


def path_in(blob: str) -> str:
    """Where a blob lies in an archive, by its digest."""
    return f"blobs/{blob.replace(':', '/')}"


def describe(media_type: str, blob: str, size: int) -> dict[str, object]:
    """A descriptor of a blob, by its digest."""
    return {"mediaType": media_type, "digest": blob, "size": size}


def as_json(value: object) -> bytes:
    """JSON as a blob."""
    return json.dumps(value, sort_keys=True).encode()
