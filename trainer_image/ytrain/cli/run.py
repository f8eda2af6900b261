"""`ytrain run`: train from a job file on this machine."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from ytrain_api import JobFile, load_job
from ytrain_api.errors import Preempted, SpecError

if TYPE_CHECKING:
    from ytrain.methods.options import RunOptions
    from ytrain.report import Progress


ClaimOption = Annotated[
    list[str] | None, typer.Option(help="NAME=DIR: the folder that stands for a volume claim; repeatable.")
]
DeviceOption = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to compute.")]
ProcessesOption = Annotated[
    int,
    typer.Option(min=1, max=64, help="Ranks that train together, each with one device; restarted when they fail."),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(help="Folder of tokenised data.", envvar="YTRAIN_CACHE", show_default="~/.cache/ytrain"),
]


def run(
    file: Annotated[Path, typer.Argument(help="The job file: a YTrainJob, with its ConfigMaps and Secrets beside it.")],
    workdir: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/NAME")] = None,
    claim: ClaimOption = None,
    processes: ProcessesOption = 1,
    device: DeviceOption = "auto",
    resume: Annotated[
        Literal["auto", "never"], typer.Option(help="Go on with the run in the work folder, or refuse to.")
    ] = "auto",
    cache: CacheOption = None,
) -> None:
    """Train from a job file on this machine; stopped at any point, the same command goes on."""
    console = Console(soft_wrap=True)
    job_file = load_job(file)
    claims = parse_claims(claim or [])
    console.print(f"[bold]{escape(job_file.job.metadata.name)}[/]: preparing")
    # After the job file is checked: what follows takes seconds to import.
    from ytrain.methods.advice import absent_secrets
    from ytrain.methods.options import RunOptions
    from ytrain.report import open_progress, print_summary
    from ytrain.training.run_folder import RunFolder

    options = RunOptions(
        folder=RunFolder(workdir or Path("runs") / job_file.job.metadata.name),
        base_dir=file.resolve().parent,
        claims=claims,
        device=device,
        resume=resume,
        cache=cache_folder(cache),
    )
    progress = open_progress(console)
    if absent := absent_secrets(job_file):
        progress.note(f"warning: {absent}")
    try:
        if processes > 1:
            from ytrain.launcher.serve import run_here

            run_here(job_file, options, processes, progress)
        else:
            _run_alone(job_file, options, progress)
    except Preempted as preempted:
        saved = (
            f"the checkpoint is in {options.folder.checkpoints}" if options.folder.begun() else "nothing was trained"
        )
        raise Preempted(f"{preempted}; {saved}. Run the same command to go on") from None
    finally:
        progress.close()
    print_summary(options.folder.path, console)


def _run_alone(job_file: JobFile, options: "RunOptions", progress: "Progress") -> None:
    from ytrain.methods.run import run_job
    from ytrain.training.stop import stop_on_signals

    with stop_on_signals(progress.note) as stop:
        run_job(job_file, options, progress, stop)


def parse_claims(claims: list[str], option: str = "--claim") -> dict[str, Path]:
    """`NAME=DIR` options as a table; `option` is what they are called in messages.

    Raises:
        SpecError: not of this form, or no such folder.
    """
    table = {}
    for text in claims:
        name, separator, folder = text.partition("=")
        if not separator or not name or not folder:
            raise SpecError(f"{option} {text}: write it as NAME=DIR, such as {option} models=./models")
        if not Path(folder).is_dir():
            raise SpecError(f"{option} {text}: {folder} is not a folder; make it, or name another")
        table[name] = Path(folder)
    return table


def cache_folder(given: Path | None) -> Path:
    """Where tokenised data are kept."""
    return given or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ytrain"
