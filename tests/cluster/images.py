"""Images into nodes: from an archive, or from whichever of buildah, podman and docker holds them."""

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

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
    """Import an archive into a node's containerd and return the images' names.

    The archive comes by standard input: /run, /var/lib and /var/log of this host are not seen from a node.
    """
    with archive.open("rb") as content:
        done = subprocess.run(
            [*machine.entrance, "ctr", "--namespace=k8s.io", "images", "import", "-"],
            stdin=content, capture_output=True, env=ENVIRONMENT, check=False,
        )  # fmt: skip
    said = (done.stdout + done.stderr).decode(errors="replace")
    if done.returncode:
        raise ClusterError(f"{archive} cannot be imported into {machine.name}: {said.strip()[-1000:]}")
    return re.findall(r"^unpacking (\S+)", said, re.MULTILINE)
