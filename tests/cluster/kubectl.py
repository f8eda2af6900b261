"""kubectl, of the cluster's own version, as a function."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.failures import ClusterError
from tests.cluster.programs import path_of


@dataclass(frozen=True)
class Kubectl:
    """A cluster as one kubeconfig sees it, and a namespace of it."""

    kubeconfig: Path
    namespace: str = ""

    def command(self, *arguments: str | Path) -> list[str | Path]:
        """The whole command line, for those who start it themselves."""
        within = [f"--namespace={self.namespace}"] if self.namespace else []
        return [path_of("kubectl"), f"--kubeconfig={self.kubeconfig}", *within, *arguments]

    def __call__(self, *arguments: str | Path, text: str | None = None, seconds: float = 180) -> str:
        """Run it and return what it prints; raises ClusterError with its words when it fails."""
        try:
            done = subprocess.run(
                self.command(*arguments), input=text, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired as stuck:
            raise ClusterError(f"kubectl {' '.join(map(str, arguments))}: no end after {seconds:.0f} s") from stuck
        if done.returncode:
            raise ClusterError(f"kubectl {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *what: str) -> Any:
        """`kubectl get` as a value."""
        return json.loads(self("get", *what, "--output=json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create or change objects."""
        self(
            "apply", "--server-side", "--force-conflicts", "--filename=-", text="\n---\n".join(map(json.dumps, objects))
        )

    def ready(self) -> bool:
        """Whether the API server answers and says that it is ready."""
        try:
            return self("get", "--raw=/readyz", seconds=60) == "ok"
        except ClusterError:
            return False
