"""From the tree to an archive that containerd imports; a tree whose content was built before costs nothing.

Archives lie outside the clone, named by content, so that every clone on a machine shares them.
"""

import fcntl
import os
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.image import base, site
from tests.image.builders import Builder, Recipe, find_builder, output, run, succeeds
from tests.image.content import content_key

ROOT = Path(__file__).resolve().parents[2]

REGISTRY = "docker.io"
"""What Kubernetes puts before a name that has no registry; an image imported without it would not be found."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a build takes from its caller."""

    cache: Path
    base: str | None = None
    """An image to begin with, instead of Python's official one."""
    builder: str | None = None
    """buildah, podman or docker; absent: the first that works."""
    wheels: Path | None = None
    """Folder of wheels that are taken before those of the package index."""

    @staticmethod
    def from_environment() -> "Settings":
        """BASE, BUILDER, UV_FIND_LINKS and XDG_CACHE_HOME, as the Makefile gives them."""
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        # The same default as in the Makefile.
        wheels = Path(os.environ.get("UV_FIND_LINKS") or ROOT.parent / "shared" / "wheels")
        return Settings(
            cache=caches / "ytrain" / "images",
            base=os.environ.get("BASE") or None,
            builder=os.environ.get("BUILDER") or None,
            wheels=wheels if wheels.is_dir() else None,
        )


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image that `build` made, or will make."""

    target: str
    repository: str
    tag: str
    archive: Path

    @property
    def name(self) -> str:
        """With registry and tag, as builders and containerd know it."""
        return f"{REGISTRY}/{self.repository}:{self.tag}"

    @property
    def short_name(self) -> str:
        """For a pod's `image`, or an operator's settings."""
        return f"{self.repository}:{self.tag}"


def image_of(target: str, settings: Settings) -> Image:
    """What the tree's image would be called now, built or not."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    circumstances = [settings.base or base.recipe_key(), *_wheel_names(target, settings)]
    key = content_key(ROOT, target, circumstances)
    archive = settings.cache / f"{target}-{key}.tar"
    return Image(target=target, repository=f"ytrain/{target}", tag=f"{version}-{key}", archive=archive)


def build(target: str, settings: Settings) -> Image:
    """Build a target of the Dockerfile unless its archive is there; of older ones nothing is left.

    Raises:
        BuildError: what could not be done.
    """
    image = image_of(target, settings)
    settings.cache.mkdir(parents=True, exist_ok=True)
    with _alone(settings.cache):
        if not image.archive.is_file():
            builder = find_builder(settings.builder)
            _build(image, builder, settings)
            _export(image, builder)
            _remove_older(image, builder)
    return image


def ensure_stored(image: Image, settings: Settings) -> None:
    """Have the image in the builder's own store too, where someone may have removed it."""
    builder = find_builder(settings.builder)
    with _alone(settings.cache):
        if not succeeds(builder.has(image.name)):
            _build(image, builder, settings)


def _build(image: Image, builder: Builder, settings: Settings) -> None:
    begin = base.base_image(builder, settings.base)
    with tempfile.TemporaryDirectory(prefix="ytrain-image-") as temporary:
        here = Path(temporary)
        (here / "site").mkdir()
        (here / "wheels").mkdir()
        site.write_site(here / "site")
        names = _wheel_names(image.target, settings)
        contexts = {"site": here / "site", "wheels": settings.wheels or here / "wheels"}
        recipe = Recipe(
            root=ROOT,
            target=image.target,
            tag=image.name,
            arguments={"BASE": begin, "WHEELS": " ".join(names) or "none"},
            contexts=contexts,
        )
        run(builder.build(recipe))


def _export(image: Image, builder: Builder) -> None:
    unfinished = image.archive.with_suffix(".tmp")
    unfinished.unlink(missing_ok=True)  # of a build that was killed; buildah does not write over it
    run(builder.save(image.name, unfinished), quiet=True)
    unfinished.rename(image.archive)


def _remove_older(image: Image, builder: Builder) -> None:
    """One image of each target is kept: they are large, and a checkout of older code builds again in seconds."""
    for path in image.archive.parent.glob(f"{image.target}-*.tar"):
        if path != image.archive:
            path.unlink()
    ours = (f"{image.repository}:", f"{REGISTRY}/{image.repository}:")  # docker leaves its own registry out
    for name in output(builder.tags).split():
        if name.startswith(ours) and name not in (image.name, image.short_name):
            succeeds(builder.remove(name))  # one that a container uses stays


def _wheel_names(target: str, settings: Settings) -> list[str]:
    if target != "trainer" or settings.wheels is None:
        return []
    return sorted(path.name for path in settings.wheels.glob("*.whl"))


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Builds wait for each other: a second one mostly finds its work done."""
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
