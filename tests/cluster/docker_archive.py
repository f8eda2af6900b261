"""A docker archive (`docker save`, `buildah push docker-archive:`) as an OCI archive without what a node has already.

The layers of such an archive are not compressed, so their digests are the ones that the image's configuration lists:
nothing needs to be read to know what is missing, and a change of our own code sends megabytes instead of gigabytes.
"""

import json
import tarfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.cluster.oci_archive import add, frame, path_in


@dataclass(frozen=True)
class DockerArchive:
    """One image in an open archive."""

    tar: tarfile.TarFile
    name: str
    """With registry and tag."""
    config: bytes
    layers: dict[str, tarfile.TarInfo]
    """The layers' files by digest, from the first to the last."""

    def write_missing(self, target: IO[bytes], present: Collection[str]) -> None:
        """Write an OCI archive of the image with the layers whose digests are not among those `present`."""
        sizes = {digest: file.size for digest, file in self.layers.items()}
        with tarfile.open(fileobj=target, mode="w|") as out:
            for path, content in frame(self.name, self.config, sizes).items():
                add(out, path, content)
            for digest, file in self.layers.items():
                if digest not in present:
                    header = tarfile.TarInfo(path_in(digest))
                    header.size, header.mode = file.size, 0o644
                    out.addfile(header, self.tar.extractfile(file))


@contextmanager
def opened(archive: Path) -> Iterator[DockerArchive | None]:
    """The image in an archive; None if the file is no docker archive."""
    with tarfile.open(archive) as tar:
        if "manifest.json" not in tar.getnames():
            yield None
            return
        [entry] = json.loads(content(tar, "manifest.json"))
        [name] = map(full_name, entry["RepoTags"])
        config = content(tar, entry["Config"])
        files = [tar.getmember(layer) for layer in entry["Layers"]]
        yield DockerArchive(tar, name, config, dict(zip(json.loads(config)["rootfs"]["diff_ids"], files, strict=True)))


def full_name(name: str) -> str:
    """As containerd knows it: docker leaves its own registry out."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def content(tar: tarfile.TarFile, name: str) -> bytes:
    """A file in an archive."""
    file = tar.extractfile(name)
    assert file is not None, f"{name} is no regular file"
    return file.read()
