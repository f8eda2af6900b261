"""`ytrain check`: what is wrong with a job, and what its run will be, for people or as JSON for scripts."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from ytrain.cli.run import CacheOption, ClaimOption, ProcessesOption, cache_folder, parse_claims
from ytrain.methods.findings import split_messages
from ytrain_api import load_job
from ytrain_api.errors import SpecError

if TYPE_CHECKING:
    from ytrain.methods.check import Check


def check(
    file: Annotated[Path, typer.Argument(help="The job file: a YTrainJob, with its ConfigMaps and Secrets beside it.")],
    claim: ClaimOption = None,
    processes: ProcessesOption = 1,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="What the run is foretold for.")
    ] = "auto",
    cache: CacheOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
) -> int:
    """Tell what is wrong with a job file and its data, and what the run will be; exits with 1 if anything is wrong."""
    console, claims = _console(), parse_claims(claim or [])
    try:
        job_file = load_job(file)
    except SpecError as error:
        messages = split_messages(error)
        if as_json:
            print(json.dumps({"job": None, "findings": messages}, ensure_ascii=False))
        else:
            from ytrain.cli.check_view import print_findings

            print_findings(console, messages)
        return 1
    with Console(stderr=True).status("checking") as status:
        # After the job file is checked: torch and transformers take seconds to import.
        from ytrain.cli.check_view import print_check
        from ytrain.engine.device import choose_device
        from ytrain.methods.check import check as check_job
        from ytrain.methods.options import RunOptions
        from ytrain.training.run_folder import RunFolder

        name = job_file.job.metadata.name
        options = RunOptions(
            folder=RunFolder(Path("runs") / name),
            base_dir=file.resolve().parent,
            claims=claims,
            device=device,
            resume="auto",
            cache=cache_folder(cache),
        )
        result = check_job(
            job_file,
            options,
            choose_device(device),
            processes,
            lambda words: status.update(f"checking: tokenising, {words}"),
        )
    if as_json:
        print(json.dumps(to_json(name, result), ensure_ascii=False))
    else:
        command = ["ytrain", "run", str(file), *(word for text in claim or [] for word in ("--claim", text))]
        command += ["--processes", str(processes)] if processes > 1 else []
        command += ["--device", device] if device != "auto" else []
        command += ["--cache", str(cache)] if cache is not None else []
        print_check(console, name, result, next_command=shlex.join(command))
    return 1 if result.findings.messages else 0


def to_json(job: str, result: "Check") -> dict[str, Any]:
    """What a script reads: null for what could not be told. Bytes, seconds and tokens are plain numbers."""
    course, memory, duration, windows = result.course, result.memory, result.duration, result.windows
    return {
        "job": job,
        "findings": result.findings.messages,
        "warnings": result.warnings,
        "notes": result.notes,
        "data": result.data and result.data.to_json(),
        "plan": course
        and {
            "steps": course.steps,
            "epochs": course.epochs,
            "samplesPerStep": course.samples_per_step,
            "learningRate": course.learning_rate,
            "learningRateIsDefault": course.learning_rate_is_default,
            "firstStep": {
                "samples": course.first.samples,
                "tokens": course.first.tokens,
                "rows": course.first.rows,
            },
            "packing": course.filling and course.filling.to_json(),
        },
        "windows": windows
        and {
            "windows": windows.windows,
            "forwardPerTrained": windows.forward_per_trained,
            "timesWhole": windows.times_whole,
        },
        "memory": memory
        and {
            "estimatedBytes": memory.need.total,
            "availableBytes": memory.available,
            "parts": memory.need.parts,
            "fits": memory.fits,
            "remedies": [asdict(remedy) for remedy in memory.remedies],
        },
        "time": duration and asdict(duration),
    }


def _console() -> Console:
    """A pipe has no width: its lines are left whole, for `grep` and logs."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=1000)
