"""The parts of a source URI.

`file:///path`, `file://./path` (relative to the job file), `pvc://claim/path`, `configmap://name/key`,
`s3://bucket/prefix`, `hf://owner/name@revision/path` and `hf://datasets/owner/name@revision/path`.
"""

import re
from dataclasses import dataclass
from typing import Literal

from ytrain_api.errors import SpecError

Scheme = Literal["file", "pvc", "s3", "configmap", "hf"]

GLOB_MARKS = "*?["

_FORMS = {
    "file": "file:///path, or file://./path relative to the job file",
    "pvc": "pvc://claim/path",
    "s3": "s3://bucket/prefix",
    "configmap": "configmap://name/key",
    "hf": "hf://owner/name@revision/path for a model, hf://datasets/owner/name@revision/path for data",
}
_BY_ROOT: dict[str, Scheme] = {"pvc": "pvc", "s3": "s3", "configmap": "configmap"}
_HUB = re.compile(r"(?P<data>datasets/)?(?P<name>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<path>.*))?")


@dataclass(frozen=True)
class Location:
    """A parsed source URI."""

    uri: str
    scheme: Scheme
    root: str
    """Claim, bucket, ConfigMap, or `owner/name` on the Hub; empty for a file."""
    path: str
    """Below the root; may be empty, or a glob."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    dataset: bool = False
    """A Hub repository of data rather than of a model."""


def parse(uri: str) -> Location:
    """Splits a source URI.

    Raises:
        SpecError: unknown scheme, or a part is missing.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in _FORMS:
        raise SpecError(f"{uri}: not a known source. Known are {'; '.join(_FORMS.values())}.")
    if scheme == "file":
        if rest.startswith(("/", "./", "../")):
            return Location(uri, "file", "", rest)
    elif scheme == "hf":
        match = _HUB.fullmatch(rest)
        if match:
            path = (match["path"] or "").strip("/")
            return Location(uri, "hf", match["name"], path, match["revision"], dataset=bool(match["data"]))
    else:
        root, _, path = rest.partition("/")
        if root:
            return Location(uri, _BY_ROOT[scheme], root, path.strip("/"))
    raise SpecError(f"{uri}: incomplete. Write {_FORMS[scheme]}.")
