"""Images into nodes: from an archive, or from whichever of buildah, podman and docker holds them."""

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from tests.cluster import docker_archive
from tests.cluster.failures import ClusterError
from tests.cluster.machines import Machine
from tests.cluster.processes import ENVIRONMENT

EXPORTS = {
    "buildah": ["push", "{image}", "docker-archive:{archive}:{image}"],
    "podman": ["save", "--output={archive}", "{image}"],
    "docker": ["save", "--output={archive}", "{image}"],
}


@contextlib.contextmanager
def as_archive(image: str) -> Iterator[Path]:
    """The image as an archive: the file itself, or an export of the image of that name."""
    if Path(image).is_file():
        yield Path(image)
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "image.tar"
        said = []
        for tool, words in EXPORTS.items():
            if not shutil.which(tool):
                continue
            command = [word.format(image=image, archive=archive) for word in words]
            done = subprocess.run([tool, *command], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                yield archive
                return
            said.append(f"{tool}: {done.stderr.strip()[-300:]}")
        tools = "; ".join(said) or f"none of {', '.join(EXPORTS)} is installed"
        raise ClusterError(f"{image} is neither a file nor an image that can be exported ({tools})")


def import_archive(machine: Machine, archive: Path) -> list[str]:
    """Import an archive into a node's containerd, of a docker archive only what the node lacks; returns images' names.

    It comes by standard input: /run, /var/lib and /var/log of this host are not seen from a node.
    """
    with docker_archive.opened(archive) as image:
        if image is None:
            with archive.open("rb") as content:
                return import_stream(machine, lambda target: shutil.copyfileobj(content, target, 1 << 20), archive)
        present = frozenset(machine.run("ctr", "--namespace=k8s.io", "content", "list", "--quiet").split())
        return import_stream(machine, lambda target: image.write_missing(target, present), archive)


def import_stream(machine: Machine, write: Callable[[IO[bytes]], None], archive: Path) -> list[str]:
    """Import what `write` writes."""
    with tempfile.TemporaryFile() as log, subprocess.Popen(
        [*machine.entrance, "ctr", "--namespace=k8s.io", "images", "import", "-"],
        stdin=subprocess.PIPE, stdout=log, stderr=log, env=ENVIRONMENT,
    ) as importing:  # fmt: skip
        assert importing.stdin is not None
        with contextlib.suppress(BrokenPipeError), importing.stdin as target:  # what it said tells why
            write(target)
        code = importing.wait()
        log.seek(0)
        said = log.read().decode(errors="replace")
    if code:
        raise ClusterError(f"{archive} cannot be imported into {machine.name}: {said.strip()[-1000:]}")
    return re.findall(r"^unpacking (\S+)", said, re.MULTILINE)
