"""What has been made on this host, on disk before it is made, so that `down` finds it after a crash too."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.cluster.failures import ClusterError
from tests.cluster.processes import ProcessId

STATE_HOME = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
FOLDER = Path(os.environ.get("YTRAIN_CLUSTER_FOLDER") or STATE_HOME / "ytrain" / "cluster")


@dataclass
class State:
    """The record of one cluster."""

    folder: Path
    machines: dict[str, ProcessId] = field(default_factory=dict)
    """The first process of each machine."""
    components: dict[str, ProcessId] = field(default_factory=dict)
    """The process that waits for each component, outside its machine."""
    kernel_settings: dict[str, str] = field(default_factory=dict)
    """What kubelets change for the whole host, as it was before."""
    complete: bool = False
    """Whether `up` came to its end."""

    def save(self) -> None:
        """Write it so that a crash leaves the old or the new record."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / "state.unfinished"
        unfinished.write_text(json.dumps({**asdict(self), "folder": str(self.folder)}, indent=2))
        unfinished.rename(self.folder / "state.json")


def load(folder: Path = FOLDER) -> State | None:
    """The record in `folder`; None when nothing is up."""
    try:
        record = json.loads((folder / "state.json").read_text())
    except FileNotFoundError:
        return None
    for kind in ("machines", "components"):
        record[kind] = {name: ProcessId(**process) for name, process in record[kind].items()}
    return State(**{**record, "folder": folder})


@contextlib.contextmanager
def locked(folder: Path = FOLDER) -> Iterator[None]:
    """Only one `up` or `down` at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as taken:
            raise ClusterError(
                f"another command is changing the cluster in {folder}; wait until it has ended"
            ) from taken
        yield
