"""An output in a bucket: a finished folder is uploaded, its record last, so that a prefix without one is no output."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ytrain.models.folder import file_digest
from ytrain.sources.location import parse
from ytrain_api.errors import SpecError

RECORD = "ytrain.json"
UPLOADING = "ytrain.uploading.json"
"""The record under another name, there while the upload is under way: it says whose it is."""

_TRIAL = "ytrain.trial"
_DIGEST = "xxh3"


class BucketOutput:
    """The prefix of a bucket that a job's result goes to.

    Args:
        ours: whether what lies there with this record, or with this mark of an upload (`finished` tells which), may be
            replaced by this run.

    Raises:
        SpecError: no prefix, no such bucket, no access, or something else lies there.
        TransientError: the bucket cannot be reached.
    """

    def __init__(self, target: str, ours: Callable[[Mapping[str, Any], bool], bool]) -> None:
        from ytrain.sources.bucket import Bucket  # boto3, for those who use it

        location = parse(target)
        self._where = f"spec.output.target: {target}"
        if not location.path:
            raise SpecError(f"{self._where}: name a prefix in the bucket, such as {target.rstrip('/')}/NAME")
        self._prefix = f"{location.path}/"
        self._ours = ours
        self._bucket = Bucket(location.root, self._where)
        self._check_free()
        self._bucket.check_writable(self._prefix + _TRIAL)

    def upload(self, folder: Path, tell: Callable[[str], None]) -> None:
        """Make the prefix hold what the folder holds; what an upload before this one has brought there stays.

        Args:
            folder: a finished output, with its record.
            tell: hears every second how far it is.

        Raises:
            SpecError, TransientError: as above; the same call goes on.
        """
        there = self._check_free()
        record = (folder / RECORD).read_bytes()
        files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
        del files[RECORD]
        if UPLOADING not in there and RECORD in there and self._bucket.read(self._prefix + RECORD) == record:
            return
        self._bucket.write(self._prefix + UPLOADING, record)
        self._delete([RECORD] if RECORD in there else [])
        digests = {name: file_digest(path) for name, path in files.items()}
        missing = [name for name, path in files.items() if not self._has(there, name, path, digests[name])]
        for name in missing if UPLOADING in there else ():
            self._bucket.drop_unfinished(self._prefix + name)
        self._bucket.upload([(files[name], self._prefix + name, {_DIGEST: digests[name]}) for name in missing], tell)
        self._delete([name for name in there if name not in (*files, RECORD, UPLOADING)])
        self._bucket.write(self._prefix + RECORD, record)
        self._delete([UPLOADING])

    def _check_free(self) -> dict[str, int]:
        """Names and sizes of what lies there: nothing, or what this run may replace."""
        there = {each.key.removeprefix(self._prefix): each.size for each in self._bucket.list(self._prefix)}
        for name in (UPLOADING, RECORD):
            content = self._bucket.read(self._prefix + name) if name in there else None
            if content is not None and self._ours(_record(content), name == RECORD):
                return there
        if there:
            raise SpecError(
                f"{self._where}: is not empty (it holds {min(there)}); name another prefix, or move away what is there"
            )
        return there

    def _has(self, there: Mapping[str, int], name: str, path: Path, digest: str) -> bool:
        if there.get(name) != path.stat().st_size:
            return False
        return self._bucket.metadata(self._prefix + name).get(_DIGEST) == digest

    def _delete(self, names: list[str]) -> None:
        self._bucket.delete([self._prefix + name for name in names])


def _record(content: bytes) -> Mapping[str, Any]:
    """A record as it was written; of whatever else bears its name, nothing."""
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
