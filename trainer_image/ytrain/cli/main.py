"""Puts the commands together and turns failures into messages and exit codes, at this one place."""

import sys
from collections.abc import Callable

import typer
from rich.console import Console
from rich.markup import escape

from ytrain.cli import check, crd, distributed, model, report, run
from ytrain.engine.process import prepare_process
from ytrain_api.errors import YTrainError

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
    prepare_process()
    sys.exit(guarded(lambda: app(prog_name="ytrain", standalone_mode=False)))


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
        message, context = error.format_message(), getattr(error, "ctx", None)
        if message:  # without arguments the help is all that is to be said
            place = context.command_path if context else "ytrain"
            errors.print(f"[bold red]error:[/] {escape(message.rstrip('.'))}; see {place} --help")
        return 2
