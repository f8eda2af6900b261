"""buildah, podman and docker: how each builds an image, and the commands to ask and feed its store.

A builder is chosen because it works, not because its program is there: a docker client without a daemon is none.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Argv = list[str]


class BuildError(Exception):
    """An image could not be made; says what failed and where to look."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One build of the Dockerfile."""

    root: Path
    target: str
    tag: str
    arguments: Mapping[str, str]
    contexts: Mapping[str, Path]
    """Folders that replace stages of the same name."""

    def options(self) -> Argv:
        """What all builders understand alike."""
        return [
            *("--file", str(self.root / "Dockerfile"), "--target", self.target, "--tag", self.tag),
            *(word for name, value in self.arguments.items() for word in ("--build-arg", f"{name}={value}")),
            *(word for name, path in self.contexts.items() for word in ("--build-context", f"{name}={path}")),
            str(self.root),
        ]


@dataclass(frozen=True, kw_only=True)
class Builder:
    """One program and its dialect."""

    name: str
    works: Argv
    """Succeeds where the program can be used."""
    build: Callable[[Recipe], Argv]
    has: Callable[[str], Argv]
    """Succeeds if the store has an image."""
    pull: Callable[[str], Argv]
    remove: Callable[[str], Argv]
    tags: Argv
    """Prints `repository:tag` of every image, a line each."""
    adopt: Callable[[Path, str], Sequence[Argv]]
    """Make an image of the tar archive of a root file system."""
    save: Callable[[str, Path], Argv]
    """Write an archive as `docker save` does, which containerd imports."""


def _buildah_adopt(tar: Path, tag: str) -> Sequence[Argv]:
    container = "ytrain-base"
    return [
        ["buildah", "from", "--name", container, "scratch"],
        ["buildah", "add", "--quiet", container, str(tar), "/"],
        ["buildah", "config", "--cmd", "python3", container],
        ["buildah", "commit", "--quiet", "--rm", "--format", "oci", container, tag],
    ]


BUILDAH = Builder(
    name="buildah",
    works=["buildah", "info"],
    # chroot: needs neither a runtime nor a cgroup layout that the runtime likes; the host's network is then a given.
    build=lambda recipe: [
        *("buildah", "build", "--isolation", "chroot", "--layers", "--format", "oci", "--pull-never"),
        *recipe.options(),
    ],
    has=lambda tag: ["buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", tag],
    pull=lambda tag: ["buildah", "pull", "--quiet", "--retry", "0", tag],
    remove=lambda tag: ["buildah", "rmi", tag],
    tags=["buildah", "images", "--format", "{{.Name}}:{{.Tag}}"],
    adopt=_buildah_adopt,
    # Not `oci:`, which compresses every layer again: that takes three times as long.
    save=lambda tag, archive: ["buildah", "push", "--quiet", tag, f"docker-archive:{archive}:{tag}"],
)

PODMAN = Builder(
    name="podman",
    works=["podman", "info"],
    build=lambda recipe: ["podman", "build", "--layers", "--format", "oci", "--pull=never", *recipe.options()],
    has=lambda tag: ["podman", "image", "exists", tag],
    pull=lambda tag: ["podman", "pull", "--quiet", tag],
    remove=lambda tag: ["podman", "image", "rm", tag],
    tags=["podman", "images", "--format", "{{.Repository}}:{{.Tag}}"],
    adopt=lambda tar, tag: [["podman", "import", "--quiet", str(tar), tag]],
    save=lambda tag, archive: ["podman", "save", "--quiet", "--format", "docker-archive", "-o", str(archive), tag],
)

DOCKER = Builder(
    name="docker",
    works=["docker", "version", "--format", "{{.Server.Version}}"],
    build=lambda recipe: ["docker", "buildx", "build", "--load", *recipe.options()],
    has=lambda tag: ["docker", "image", "inspect", "--format", "{{.Id}}", tag],
    pull=lambda tag: ["docker", "pull", "--quiet", tag],
    remove=lambda tag: ["docker", "image", "rm", tag],
    tags=["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"],
    adopt=lambda tar, tag: [["docker", "import", str(tar), tag]],
    save=lambda tag, archive: ["docker", "save", "-o", str(archive), tag],
)

BUILDERS = (BUILDAH, PODMAN, DOCKER)


def find_builder(wanted: str | None = None) -> Builder:
    """The builder of this name, or the first that works; where none does, buildah is installed.

    Raises:
        BuildError: it does not work, or could not be installed.
    """
    if wanted is not None:
        named = [builder for builder in BUILDERS if builder.name == wanted]
        if not named:
            raise BuildError(f"BUILDER={wanted}: choose {', '.join(builder.name for builder in BUILDERS)}")
        if not succeeds(named[0].works):
            raise BuildError(f"BUILDER={wanted}: does not work here; `{' '.join(named[0].works)}` says why")
        return named[0]
    for builder in BUILDERS:
        if succeeds(builder.works):
            return builder
    install("buildah", "runc")
    if not succeeds(BUILDAH.works):
        raise BuildError("buildah was installed but does not work; `buildah info` says why (it wants to be root here)")
    return BUILDAH


def install(*packages: str) -> None:
    """Install Debian packages.

    Raises:
        BuildError: not as root, or not on Debian.
    """
    print(f"installing {' '.join(packages)}", flush=True)
    try:
        for command in (["update", "-q"], ["install", "-qy", "--no-install-recommends", *packages]):
            run(["apt-get", *command], quiet=True)
    except BuildError as error:
        raise BuildError(f"{error}\n{' '.join(packages)}: install them by hand, as root") from None


def succeeds(argv: Argv) -> bool:
    """Whether a command is there and ends well."""
    if shutil.which(argv[0]) is None:
        return False
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def output(argv: Argv) -> str:
    """What a command prints; nothing if it fails."""
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout


def run(argv: Argv, *, quiet: bool = False) -> None:
    """Run a command to its end; `quiet` shows what it says only if it fails.

    Raises:
        BuildError: it failed.
    """
    try:
        ended = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if quiet else sys.stderr,
            stderr=subprocess.STDOUT if quiet else None,
            check=False,
        )
    except FileNotFoundError:
        raise BuildError(f"{argv[0]}: no such program; install it") from None
    if ended.returncode != 0:
        said = (ended.stdout or b"").decode(errors="replace")[-4000:]
        raise BuildError(f"{said}`{' '.join(argv)}` ended with {ended.returncode}")
