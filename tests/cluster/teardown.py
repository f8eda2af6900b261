"""Taking a cluster down, whole or not: ends its machines, and removes what the kernel does not remove with them."""

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster import cgroups, network, packages, state
from tests.cluster.state import State
from tests.cluster.waiting import wait_for

Say = Callable[[str], None]

KERNEL_SETTINGS = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
]
"""What a kubelet sets for the whole host; put back by `down`."""


def down(say: Say, folder: Path = state.FOLDER) -> None:
    """Take down whatever is on record; nothing may be."""
    with state.locked(folder):
        known = state.load(folder)
        if known is None:
            say("no cluster is up")
            return
        packages.require_root()
        remove(known)
        say(f"the cluster is down; its logs are in {folder / 'logs'}")


def remove(known: State) -> None:
    """End the machines and remove what the kernel does not remove with them."""
    # Who waits for a component goes first: stopped, it would not reap it, and a machine does not end before that.
    for process in (*known.components.values(), *known.machines.values()):
        process.kill()
    link = Path("/sys/class/net", network.HOST_LINK)
    wait_for(f"the link {network.HOST_LINK} to go with its machine", lambda: not link.exists(), every=0.05)
    wait_for("the nodes' cgroups to be empty", cgroups_are_gone)
    for name, value in known.kernel_settings.items():
        Path("/proc/sys", name).write_text(value)
    for made in known.folder.iterdir():
        if made.is_dir() and made.name != "logs":
            remove_tree(made)
        elif made.name not in ("logs", "lock", "state.json"):
            made.unlink()
    (known.folder / "state.json").unlink()


def remove_tree(folder: Path) -> None:
    """`shutil.rmtree` by many hands: the nodes' images are 100,000 files, and a disk may make each of them wait."""
    with ThreadPoolExecutor(16) as pool:
        for parent, _, files in os.walk(folder):
            pool.submit(_unlink, Path(parent), files)
    shutil.rmtree(folder)


def _unlink(parent: Path, files: Sequence[str]) -> None:
    for file in files:
        (parent / file).unlink()


def cgroups_are_gone() -> bool:
    """Try to remove them: a cgroup stays busy for a moment after its last process."""
    try:
        cgroups.remove()
    except OSError:
        return False
    return True
