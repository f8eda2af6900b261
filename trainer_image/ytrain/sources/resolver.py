"""Resolves source URIs to local paths, and data sources to their files, confined to the roots that they name.

A claim's path can leave the claim neither by `..` nor by a symbolic link.
"""

import difflib
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ytrain.sources.hub import fetch
from ytrain.sources.location import GLOB_MARKS, Location, parse
from ytrain_api.errors import DataError, SpecError


@dataclass(frozen=True)
class Resolved:
    """A source at hand."""

    path: Path
    """A file or a folder."""
    revision: str | None = None
    """The commit that a Hub source was pinned to, or a digest over the ETags of what lies in a bucket."""


@dataclass(frozen=True)
class DataFiles:
    """The files of a data source, in a fixed order."""

    files: tuple[tuple[str, Path], ...]
    """Each file's name in messages, and where it lies."""
    ignored: tuple[str, ...]
    """Names of files that lie there too and are of no readable type."""
    revision: str | None = None
    """As with `Resolved`."""


@dataclass(frozen=True)
class _Place:
    """Where a URI points, before anything is known to exist there."""

    uri: str
    root: Path
    path: str
    label: str
    """Prefix of file names in messages."""
    store: Path | None = None
    """Folder that links may lead to besides the root: caches keep files beside their snapshots."""
    revision: str | None = None
    ignored: tuple[str, ...] = ()
    """Of a bucket: keys that are of no readable type, and were not brought."""

    @property
    def target(self) -> Path:
        """The path itself, confined to the root."""
        target = self.root / self.path
        if ".." in Path(self.path).parts or not self.holds(target):
            raise SpecError(
                f"{self.uri}: leads out of {self.root}. Name a path inside it, without '..' or links that lead out."
            )
        return target

    def holds(self, path: Path) -> bool:
        """Whether a path, all links followed, lies within."""
        return path.resolve().is_relative_to((self.store or self.root).resolve())

    def name(self, path: Path) -> str:
        """How messages call a path."""
        return self.label + path.relative_to(self.root).as_posix()


class Sources:
    """Resolves the sources of one job.

    Args:
        claims: folder of each persistent volume claim, by claim name.
        config_maps: content of each ConfigMap, by name and key.
        base_dir: folder of the job file, to which `file://./path` is relative.
        scratch: folder in which the content of ConfigMaps is laid down as files.
        cache: folder that keeps what comes from buckets.
        weights: whether a model in a bucket comes with its weights, or is only seen to have them.
        tell: hears now and then how far a download from a bucket is; what it raises ends it.
    """

    def __init__(
        self,
        *,
        claims: Mapping[str, Path],
        config_maps: Mapping[str, Mapping[str, bytes]],
        base_dir: Path,
        scratch: Path,
        cache: Path,
        weights: bool = True,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._claims = claims
        self._config_maps = config_maps
        self._base_dir = base_dir
        self._scratch = scratch
        self._cache = cache
        self._weights = weights
        self._tell = tell

    def resolve(self, uri: str) -> Resolved:
        """One file or folder, fetched if it lies on the Hub or in a bucket.

        Raises:
            SpecError: the URI is wrong, leaves its root, or names nothing that exists.
            TransientError: the Hub or the bucket cannot be reached.
        """
        place = self._place(parse(uri), ())
        path = place.target
        if not path.exists():
            raise SpecError(f"{uri}: no such file or folder ({path}). {_advice(path)}")
        return Resolved(path, place.revision)

    def files(self, uri: str, suffixes: Collection[str]) -> DataFiles:
        """The data files of a file, a folder (with its subfolders) or a glob, sorted by name.

        Args:
            suffixes: how names of readable files end, such as `.jsonl`.

        Raises:
            SpecError: the URI is wrong or leaves its root.
            DataError: nothing readable lies there, or a link leads out of the root.
            TransientError: the Hub or the bucket cannot be reached.
        """
        place = self._place(parse(uri), suffixes)
        base = place.target
        files: list[tuple[str, Path]] = []
        ignored = [place.label + key for key in place.ignored]
        for path in _found(place, base):
            if not path.is_file() or not path.name.lower().endswith(tuple(suffixes)) or _hidden(path, base):
                ignored.append(place.name(path))
            elif not place.holds(path):
                raise DataError(f"{place.name(path)}: a link that leads out of {place.root}. Copy the file into it.")
            else:
                files.append((place.name(path), path))
        if not files:
            raise DataError(_nothing(uri, base, ignored, suffixes))
        return DataFiles(tuple(files), tuple(ignored), place.revision)

    def _place(self, location: Location, suffixes: Collection[str]) -> _Place:
        uri = location.uri
        match location.scheme:
            case "file":
                path = os.path.normpath(self._base_dir.absolute() / location.path)
                return _Place(uri, Path("/"), path.lstrip("/"), "/")
            case "pvc":
                return _Place(uri, self._claim(location), location.path, f"pvc://{location.root}/")
            case "configmap":
                return _Place(uri, self._config_map(location), location.path, f"configmap://{location.root}/")
            case "s3":
                from ytrain.sources import s3  # boto3, for those who use it

                fetched = s3.fetch(location, suffixes, cache=self._cache / "s3", weights=self._weights, tell=self._tell)
                return _Place(
                    uri,
                    fetched.folder,
                    location.path,
                    f"s3://{location.root}/",
                    store=self._cache / "s3",
                    revision=fetched.revision,
                    ignored=fetched.ignored,
                )
            case "hf":
                folder, commit = fetch(location, suffixes)
                kind = "datasets/" if location.dataset else ""
                label = f"hf://{kind}{location.root}@{commit[:12]}/"
                return _Place(uri, folder, location.path, label, store=folder.parent.parent, revision=commit)

    def _claim(self, location: Location) -> Path:
        folder = self._claims.get(location.root)
        if folder is None:
            known = ", ".join(sorted(self._claims)) or "none"
            raise SpecError(
                f"{location.uri}: the claim {location.root!r} has no folder here (known: {known})."
                f" Give one with --claim {location.root}=DIR."
            )
        if not folder.is_dir():
            raise SpecError(f"{location.uri}: the folder {folder} of the claim {location.root!r} does not exist.")
        return folder.absolute()

    def _config_map(self, location: Location) -> Path:
        """Lays the ConfigMap down as a folder with a file for each key, as Kubernetes mounts it."""
        content = self._config_maps.get(location.root)
        if content is None:
            known = ", ".join(sorted(self._config_maps)) or "none"
            raise SpecError(
                f"{location.uri}: no ConfigMap {location.root!r} is at hand (known: {known})."
                " Add it to the job file as a document of its own."
            )
        if location.path and location.path not in content:
            raise SpecError(
                f"{location.uri}: the ConfigMap has no key {location.path!r} (keys: {', '.join(sorted(content))})."
            )
        folder = self._scratch.absolute() / "configmaps" / location.root
        folder.mkdir(parents=True, exist_ok=True)
        for key, value in content.items():
            _Place(location.uri, folder, key, "").target.write_bytes(value)
        return folder


def _found(place: _Place, base: Path) -> list[Path]:
    """Everything that is no folder below a folder, or that a glob matches; a link to a folder is not followed."""
    if base.is_file():
        return [base]
    paths: Iterable[Path]
    if base.is_dir():
        paths = base.rglob("*")
    else:
        paths = place.root.glob(place.path) if any(mark in place.path for mark in GLOB_MARKS) else ()
    return sorted(path for path in paths if path.is_symlink() or not path.is_dir())


def _hidden(path: Path, base: Path) -> bool:
    """Whether a file in a folder is hidden: checkpoints of notebooks, and the `..data` of a mounted ConfigMap."""
    return base in path.parents and any(part.startswith(".") for part in path.relative_to(base).parts)


def _nothing(uri: str, base: Path, ignored: list[str], suffixes: Collection[str]) -> str:
    readable = " ".join(sorted(suffix for suffix in suffixes if suffix.count(".") == 1))
    if packed := sorted({suffix[suffix.rindex(".") :] for suffix in suffixes if suffix.count(".") > 1}):
        readable += f", most also as {' '.join(packed)}"
    if ignored:
        listed = ", ".join(ignored[:5]) + (" ..." if len(ignored) > 5 else "")
        return f"{uri}: no readable file (found {listed}). Readable are {readable}."
    if base.is_dir():
        return f"{uri}: the folder {base} is empty. Put files into it: {readable}."
    return f"{uri}: no such file or folder ({base}), and no glob that matches anything. {_advice(base)}"


def _advice(path: Path) -> str:
    """What to do about a path that is not there: the neighbour that was probably meant, if there is one."""
    neighbours = path.parent.iterdir() if os.access(path.parent, os.R_OK) and path.parent.is_dir() else ()
    close = difflib.get_close_matches(path.name, [each.name for each in neighbours], n=1)
    return f"Did you mean {close[0]}?" if close else "Check the path."
