"""The cgroups below which each node's pods live, for cgroup v1 and v2.

The kubelet wants its root to be there before it starts, and nobody but this package removes what it leaves.
"""

from pathlib import Path

from tests.cluster.nodes import CGROUPS

MOUNT = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """The roots of all hierarchies: one in v2, one for each controller in v1."""
    if (MOUNT / "cgroup.controllers").exists():
        return [MOUNT]
    return [folder for folder in MOUNT.iterdir() if folder.is_dir() and not folder.is_symlink()]


def make(node: str) -> None:
    """Make a node's cgroup in every hierarchy."""
    for root in hierarchies():
        parent = root
        for name in (CGROUPS, node):
            child = parent / name
            child.mkdir(exist_ok=True)
            inherit(parent, child)
            parent = child


def inherit(parent: Path, child: Path) -> None:
    """Make a cgroup usable: v1 starts cpusets empty, v2 hands out no controller by itself."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (child / name).exists() and not (child / "cgroup.controllers").exists():
            (child / name).write_text((parent / name).read_text())
    if (parent / "cgroup.subtree_control").exists():
        for controller in (parent / "cgroup.controllers").read_text().split():
            (parent / "cgroup.subtree_control").write_text(f"+{controller}")


def remove() -> None:
    """Remove everything below; the processes must be gone."""
    for root in hierarchies():
        top = root / CGROUPS
        if top.exists():
            for folder in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
                folder.rmdir()
            top.rmdir()
