"""Puts the commands together and turns failures into messages and exit codes, at this one place."""

import ctypes
import os
import platform
import sys
import warnings
from collections.abc import Callable

import typer
from rich.console import Console
from rich.markup import escape

from ytrain.cli import check, crd, distributed, model, report, run
from ytrain_api.errors import YTrainError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Fine-tune open language models from one YAML file, on a laptop or on Kubernetes.",
)
app.command("run")(run.run)
app.command("launcher")(distributed.launcher)
app.command("worker")(distributed.worker)
app.command("check")(check.check)
app.command("merge")(model.merge)
app.command("report")(report.report)
app.command("crd")(crd.crd)
models = typer.Typer(no_args_is_help=True, help="Model folders.")
models.command("import")(model.import_model)
app.add_typer(models, name="model")


def main() -> None:
    """Entry point of `ytrain`."""
    _return_freed_memory()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Before torch is loaded: threads that spin while they wait make a run many times slower on cores that it shares.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The libraries' own bars and notices to developers would tear our progress display apart.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    sys.exit(guarded(lambda: app(standalone_mode=False)))


def _return_freed_memory() -> None:
    """Give large tensors pages of their own, which go back to the system when they are freed.

    glibc raises its threshold for that to 32 MiB by itself, and the holes then made the resident set of a LoRA run on a
    CPU a third larger (4.0 instead of 3.1 GiB, measured). Huge pages keep the page faults cheap.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 4 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def guarded(command: Callable[[], int | None]) -> int:
    """Run a command; a failure that users meet becomes its message and exit code, any other keeps its traceback."""
    errors = Console(stderr=True, soft_wrap=True)
    try:
        return command() or 0
    except YTrainError as error:
        errors.print(f"[bold red]error:[/] {escape(str(error))}")
        return error.exit_code
    except typer.Exit as exit_:
        return exit_.exit_code
    except typer.Abort:
        return 130
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        errors.print(f"[bold red]error:[/] {escape(error.format_message().rstrip('.'))}; see ytrain --help")
        return 2
