"""The Debian packages that nodes need; installed where they are missing, which needs root."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.cluster.failures import ClusterError

NEEDED = {  # a file that the package brings, and the package
    "/usr/bin/containerd": "containerd",
    "/usr/sbin/runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "/usr/sbin/iptables": "iptables",
    "/usr/sbin/conntrack": "conntrack",
    "/sbin/ip": "iproute2",
    "/usr/bin/openssl": "openssl",
    "/sbin/sysctl": "procps",
    "/usr/bin/nsenter": "util-linux",
}


def require_root() -> None:
    """Nodes are namespaces, mounts and cgroups: all of them need root."""
    if os.geteuid() != 0:
        raise ClusterError(
            "a cluster with nodes needs root; run it as root, or set YTRAIN_E2E_KUBECONFIG to use another cluster"
        )


def install(say: Callable[[str], None]) -> None:
    """Install what is missing, and leave no service running that an installation started."""
    missing = [package for file, package in NEEDED.items() if not Path(file).exists()]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise ClusterError(f"install {' '.join(missing)}: their programs are missing and this is no Debian")
    say(f"installing {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
        done = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClusterError(f"apt-get {' '.join(command)} failed:\n{done.stderr[-2000:]}")
    if "containerd" in missing and shutil.which("systemctl"):
        # Debian starts it at once; the nodes run their own.
        subprocess.run(["systemctl", "disable", "--now", "containerd"], capture_output=True, check=False)
