"""The image that both targets begin with: Python's official one, or where it cannot be pulled, Debian's Python.

The second is made by debootstrap from this machine's own Debian mirror, and keeps nothing of this machine.
"""

import hashlib
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from tests.image.builders import Builder, BuildError, install, output, run, succeeds

PUBLIC = "python:3.12-slim-bookworm"

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "python3", "python3-venv", "tini")
PUBLIC_MIRROR = "http://deb.debian.org/debian"
"""What the image itself is told to update from, whatever this machine's mirror is."""

FORGOTTEN = (
    "etc/hostname",
    "etc/resolv.conf",
    "etc/machine-id",
    "var/cache/apt",
    "var/cache/debconf",
    "var/cache/ldconfig",
    "var/lib/apt/lists",
    "var/log",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
)
"""debootstrap copies the machine's name and resolver; the rest is of no use in a container."""

KEPT = "copyright"
"""Files of this name stay: licences ask for it."""


def base_image(builder: Builder, wanted: str | None = None) -> str:
    """The name of the base in the builder's store; pulled or made if it is not there.

    Raises:
        BuildError: it can neither be pulled nor made.
    """
    if wanted is not None:
        if not succeeds(builder.has(wanted)):
            run(builder.pull(wanted))
        return wanted
    made = f"localhost/ytrain/base:{SUITE}-{recipe_key()}"
    for name in (PUBLIC, made):
        if succeeds(builder.has(name)):
            return name
    if succeeds(builder.pull(PUBLIC)):
        return PUBLIC
    print(f"{PUBLIC} cannot be pulled here; making a base with debootstrap", flush=True)
    _make(builder, made)
    return made


def recipe_key() -> str:
    """Names what `_make` makes."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]


def _make(builder: Builder, tag: str) -> None:
    if os.geteuid() != 0:
        raise BuildError("debootstrap needs root; run as root, or name a base that can be pulled: make image BASE=...")
    if shutil.which("debootstrap") is None:
        install("debootstrap")
    # Not below a folder that is mounted noexec or nodev, as /tmp may be: debootstrap makes devices and runs programs.
    with tempfile.TemporaryDirectory(prefix="ytrain-base-", dir="/var/tmp") as temporary:
        root, archive = Path(temporary) / "root", Path(temporary) / "root.tar"
        run(
            [
                *("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
                *(SUITE, str(root), _mirror()),
            ],
            quiet=True,
        )
        forget(root)
        with tarfile.open(archive, "w") as tar:
            tar.add(root, ".", filter=lambda entry: None if entry.ischr() or entry.isblk() else entry)
        for command in builder.adopt(archive, tag):
            run(command, quiet=True)


def forget(root: Path) -> None:
    """Remove what is this machine's, and what no container needs."""
    for name in FORGOTTEN:
        path = root / name
        if path.is_dir() and not path.is_symlink():
            for entry in sorted(path.rglob("*"), reverse=True):
                if entry.is_dir() and not entry.is_symlink():
                    if not any(entry.iterdir()):
                        entry.rmdir()
                elif entry.name != KEPT:
                    entry.unlink()
        else:
            path.unlink(missing_ok=True)
    (root / "etc/apt/sources.list").write_text(
        f"deb {PUBLIC_MIRROR} {SUITE} main\n"
        f"deb {PUBLIC_MIRROR} {SUITE}-updates main\n"
        f"deb {PUBLIC_MIRROR}-security {SUITE}-security main\n"
    )


def _mirror() -> str:
    """This machine's Debian mirror of that suite."""
    listing = output(
        [
            *("apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(REPO_URI)"),
            *("Created-By: Packages", "Component: main", f"Codename: {SUITE}"),
        ]
    )
    found = [line.split()[-1] for line in listing.splitlines() if line.split()]
    return found[0].rstrip("/") if found else PUBLIC_MIRROR
