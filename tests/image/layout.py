"""An OCI image layout on disk, and the archives of single images out of it, as `ctr images import` reads them.

Layers lie there once, uncompressed: a new image adds only the layers that are new. An archive may leave out the blobs
that a node has already; containerd looks only for what it does not have.
"""

import io
import json
import tarfile
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

INDEX = "index.json"
REFERENCE = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A layer, a configuration or a manifest."""

    digest: str
    size: int

    @property
    def path(self) -> str:
        """Where it lies, in a layout and in an archive."""
        return "blobs/" + self.digest.replace(":", "/", 1)


def manifest_of(layout: Path, reference: str) -> dict[str, Any]:
    """The index entry of an image.

    Raises:
        KeyError: the layout has no such image.
    """
    for entry in _read(layout / INDEX)["manifests"]:
        if entry.get("annotations", {}).get(REFERENCE) == reference:
            return dict(entry)
    raise KeyError(reference)


def blobs_of(layout: Path, reference: str) -> list[Blob]:
    """Everything that an image consists of: manifest, configuration, then layers from the base up."""
    return list(_blobs(layout, manifest_of(layout, reference)))


def config_of(layout: Path, reference: str) -> dict[str, Any]:
    """An image's configuration: `Env`, `Entrypoint`, `User` and the like are under `config`."""
    return dict(_read(layout / blobs_of(layout, reference)[1].path))


def write_archive(
    layout: Path, reference: str, name: str, out: BinaryIO, *, without: Container[str] = frozenset()
) -> int:
    """Write one image as a tar archive, and return how many bytes of blobs are in it.

    Args:
        name: what the image is called where it is imported, with its registry: a name without one is not found later.
        without: digests of blobs to leave out.
    """
    entry = manifest_of(layout, reference)
    entry["annotations"] = {CONTAINERD_NAME: name, REFERENCE: name.rpartition(":")[2]}
    written = 0
    with tarfile.open(fileobj=out, mode="w|") as tar:
        _add(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        _add(tar, INDEX, json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
        for blob in _blobs(layout, entry):
            if blob.digest not in without:
                with (layout / blob.path).open("rb") as content:
                    tar.addfile(_header(blob.path, blob.size), content)
                written += blob.size
    return written


def keep_only(layout: Path, kept: Callable[[str], bool]) -> None:
    """Forget the images whose reference is not `kept`, and remove the blobs that no other one has."""
    index = _read(layout / INDEX)
    index["manifests"] = [
        entry for entry in index["manifests"] if kept(entry.get("annotations", {}).get(REFERENCE, ""))
    ]
    needed = {blob.path for entry in index["manifests"] for blob in _blobs(layout, entry)}
    (layout / INDEX).write_text(json.dumps(index))
    for path in (layout / "blobs").glob("*/*"):
        if path.relative_to(layout).as_posix() not in needed:
            path.unlink()


def _blobs(layout: Path, entry: dict[str, Any]) -> Iterator[Blob]:
    top = Blob(digest=entry["digest"], size=entry["size"])
    yield top
    manifest = _read(layout / top.path)
    for part in (manifest["config"], *manifest["layers"]):
        yield Blob(digest=part["digest"], size=part["size"])


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_header(name, len(content)), io.BytesIO(content))


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    return header


def _read(path: Path) -> Any:
    return json.loads(path.read_text())
