"""`ytrain launcher` and `ytrain worker`: one job on several machines, without SSH."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.console import Console

from ytrain.cli.run import CacheOption, ClaimOption, DeviceOption, cache_folder, parse_claims
from ytrain_api import load_job
from ytrain_api.errors import SpecError
from ytrain_api.protocol import PORT, Spent
from ytrain_api.status import DeviceSeconds

TokenFile = Annotated[
    Path,
    typer.Option(
        help="File with the token that launcher and workers share; any text of 16 characters or more.",
        envvar="YTRAIN_TOKEN_FILE",
    ),
]
SHORTEST_TOKEN = 16


def launcher(
    file: Annotated[Path, typer.Argument(help="The job file; spec.workers.replicas is the number of workers.")],
    token_file: TokenFile,
    listen: Annotated[
        str, typer.Option(help="HOST:PORT to listen on; without HOST at every address, of IPv4 and IPv6.")
    ] = f":{PORT}",
    workdir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the run, if it is here too: a job that is done is not run again.", show_default=False
        ),
    ] = None,
    config_map: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DIR", help="A mounted ConfigMap: one file for each key. Workers get it from the launcher."
        ),
    ] = None,
    spent: Annotated[
        str,
        typer.Option(
            metavar="JSON",
            help="Device time of earlier launchers of this job: usage.deviceSeconds as the last one told it.",
        ),
    ] = "{}",
) -> None:
    """Coordinate workers on other machines. Ctrl-C has them save and stop; SIGTERM ends the launcher alone."""
    job_file = load_job(file)
    mounted = {name: read_keys(folder) for name, folder in parse_claims(config_map or [], "--config-map").items()}
    job_file = replace(job_file, config_maps={**job_file.config_maps, **mounted})
    token = read_token(token_file)
    host, port = read_listen(listen)
    try:
        before = Spent.model_validate_json(spent)
    except ValidationError as error:
        fields = ", ".join(DeviceSeconds.model_fields)
        raise SpecError(
            f"--spent {spent}: write it as JSON with seconds of {fields} ({error.error_count()} errors)"
        ) from None
    from ytrain.launcher.serve import serve_launcher
    from ytrain.report import open_progress

    progress = open_progress(Console(soft_wrap=True))
    try:
        serve_launcher(job_file, host=host, port=port, token=token, workdir=workdir, spent=before, progress=progress)
    finally:
        progress.close()


def read_listen(text: str) -> tuple[str | None, int]:
    """Host and port of `--listen`; no host is every address.

    Raises:
        SpecError: it is neither HOST:PORT nor :PORT.
    """
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not port.isdecimal() or int(port) > 65535 or (":" in host and bare == host):
        raise SpecError(
            f"--listen {text}: write it as HOST:PORT, such as 127.0.0.1:{PORT} or [::1]:{PORT}, or as :{PORT} for "
            "every address"
        )
    return bare or None, int(port)


def read_keys(folder: Path) -> dict[str, bytes]:
    """Keys and values of a mounted ConfigMap, whose own `..data` is none of them."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[:2] != ".."}


def worker(
    launcher: Annotated[str, typer.Option(help=f"Where the launcher is, such as http://trainer:{PORT}.")],
    index: Annotated[int, typer.Option(min=0, help="Which worker this is, from 0; each has its own.")],
    token_file: TokenFile,
    workdir: Annotated[Path, typer.Option(help="Folder of the run, on a volume that all workers share.")],
    devices: Annotated[
        int | None, typer.Option(min=1, max=64, help="Ranks here.", show_default="spec.workers.devices")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Where the other workers reach this machine.", show_default="its address towards the launcher"
        ),
    ] = None,
    claim: ClaimOption = None,
    base_dir: Annotated[Path, typer.Option(help="Folder that relative file:// sources begin at.")] = Path(),
    device: DeviceOption = "auto",
    cache: CacheOption = None,
) -> None:
    """Run one worker of a job: this machine's ranks, as the launcher orders. It gets the job from the launcher."""
    token = read_token(token_file)
    claims = parse_claims(claim or [])
    from ytrain.launcher.serve import serve_worker
    from ytrain.methods.options import RunOptions
    from ytrain.report import open_progress
    from ytrain.training.run_folder import RunFolder

    options = RunOptions(
        folder=RunFolder(workdir),
        base_dir=base_dir.resolve(),
        claims=claims,
        device=device,
        resume="auto",
        cache=cache_folder(cache),
    )
    progress = open_progress(Console(soft_wrap=True))
    try:
        serve_worker(
            url=launcher,
            token=token,
            index=index,
            slots=devices,
            address=address,
            options=options,
            progress=progress,
        )
    finally:
        progress.close()


def read_token(path: Path) -> str:
    """The token in a file.

    Raises:
        SpecError: it cannot be read, or is too short to be one.
    """
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"--token-file {path}: cannot be read ({error})") from error
    if len(token) < SHORTEST_TOKEN or not token.isprintable() or not token.isascii():
        raise SpecError(
            f"--token-file {path}: needs {SHORTEST_TOKEN} or more plain characters; "
            f"make one with: python3 -c 'import secrets; print(secrets.token_hex())' > {path}"
        )
    return token
