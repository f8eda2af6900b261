"""The parts of a source URI.

`file:///path`, `file://./path` (relative to the job file), `pvc://claim/path`, `configmap://name/key`,
`hf://owner/name@revision/path` and `hf://datasets/owner/name@revision/path`.
"""

import re
from dataclasses import dataclass
from typing import Literal

from ytrain_api.errors import SpecError

Scheme = Literal["file", "pvc", "configmap", "hf"]

_FORMS = {
    "file": "file:///path, or file://./path relative to the job file",
    "pvc": "pvc://claim/path",
    "configmap": "configmap://name/key",
    "hf": "hf://owner/name@revision/path for a model, hf://datasets/owner/name@revision/path for data",
}
_HUB = re.compile(r"(?P<data>datasets/)?(?P<name>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<path>.*))?")


@dataclass(frozen=True)
class Location:
    """A parsed source URI."""

    uri: str
    scheme: Scheme
    root: str
    """Claim, ConfigMap, or `owner/name` on the Hub; empty for a file."""
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
    if scheme == "s3":
        raise SpecError(
            f"{uri}: s3:// is not available in this version. Mount the bucket and name it as pvc://claim/path."
        )
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
            return Location(uri, "pvc" if scheme == "pvc" else "configmap", root, path.strip("/"))
    raise SpecError(f"{uri}: incomplete. Write {_FORMS[scheme]}.")
