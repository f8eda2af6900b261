"""Runs commands in an image as strictly as a cluster would: runc, a random user, a read-only root, no network.

The root file system is buildah's mount of the image, so nothing is unpacked; the rest of what a pod gets is written
here as an OCI runtime bundle.
"""

import json
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 300.0

NAMESPACES = ("pid", "ipc", "uts", "mount", "network")

_READ_ONLY = ("nosuid", "noexec", "nodev", "ro")
MOUNTS: tuple[dict[str, Any], ...] = (
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=64k"],
    },
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=256m"],
    },
    {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", *_READ_ONLY]},
    {
        "destination": "/tmp",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "nodev", "mode=1777", "size=1g"],
    },
)


@dataclass(frozen=True)
class Ended:
    """How a command in a container ended, and what it printed."""

    code: int
    output: str


@contextmanager
def mounted(image: str) -> Iterator[Path]:
    """The root file system of an image in buildah's store."""
    container = _buildah("from", "--pull-never", "--name", f"ytrain-test-{uuid.uuid4().hex[:8]}", image)
    try:
        yield Path(_buildah("mount", container))
    finally:
        _buildah("umount", container)
        _buildah("rm", container)


@dataclass(frozen=True, kw_only=True)
class Containers:
    """Starts containers from one root file system; `folder` takes their bundles."""

    root: Path
    config: Mapping[str, Any]
    """The image's: `Env`, `Entrypoint`, `WorkingDir`."""
    folder: Path

    def run(self, *arguments: str, user: int = 43210, work: Path | None = None, entrypoint: bool = True) -> Ended:
        """Run to the end with the image's entrypoint; `work` is a folder that is /tmp/work in there."""
        with self.started(*arguments, user=user, work=work, entrypoint=entrypoint) as (_, process):
            output, _ = process.communicate(timeout=LIMIT_SECONDS)
            return Ended(process.returncode, output)

    @contextmanager
    def started(
        self, *arguments: str, user: int = 43210, work: Path | None = None, entrypoint: bool = True
    ) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
        """A container that runs, by its name for runc, and its process; it is killed at the end."""
        words = [*(self.config["Entrypoint"] if entrypoint else []), *arguments]
        with self._bundle(words, user, work) as (bundle, name):
            process = subprocess.Popen(
                ["runc", "run", "--bundle", str(bundle), name],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            try:
                yield name, process
            finally:
                subprocess.run(["runc", "kill", name, "KILL"], capture_output=True, check=False)
                process.wait(timeout=LIMIT_SECONDS)
                assert process.stdout is not None
                process.stdout.close()

    @contextmanager
    def _bundle(self, words: Sequence[str], user: int, work: Path | None) -> Iterator[tuple[Path, str]]:
        name = f"ytrain-test-{uuid.uuid4().hex[:8]}"
        bundle = self.folder / name
        bundle.mkdir()
        mounts = list(MOUNTS)
        if work is not None:
            mounts.append(
                {"destination": "/tmp/work", "type": "bind", "source": str(work), "options": ["rbind", "nosuid"]}
            )
        specification = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user, "gid": user},
                "args": list(words),
                "env": list(self.config["Env"]),
                "cwd": self.config.get("WorkingDir") or "/",
                "noNewPrivileges": True,
                "capabilities": {},
            },
            "root": {"path": str(self.root), "readonly": True},
            "hostname": "pod",
            "mounts": mounts,
            "linux": {"namespaces": [{"type": kind} for kind in NAMESPACES]},
        }
        (bundle / "config.json").write_text(json.dumps(specification))
        try:
            yield bundle, name
        finally:
            subprocess.run(["runc", "delete", "--force", name], capture_output=True, check=False)


def _buildah(*arguments: str) -> str:
    return subprocess.run(["buildah", *arguments], capture_output=True, text=True, check=True).stdout.strip()
