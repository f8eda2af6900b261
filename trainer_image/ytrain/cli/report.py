"""`ytrain report`: write a run's page anew and print its summary."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ytrain_api.errors import SpecError


def report(run: Annotated[Path, typer.Argument(help="Work folder of a run, finished or not.")]) -> None:
    """Write report.html of a run anew, whatever state the run is in, and print its summary."""
    from ytrain.report.page import write_report
    from ytrain.report.summary import print_summary

    if not (run / "job.yaml").is_file():
        raise SpecError(f"{run}: holds no run (no job.yaml in it); give the work folder of `ytrain run`")
    write_report(run)
    print_summary(run, Console(soft_wrap=True))
