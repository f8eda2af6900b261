"""`ytrain model import` and `ytrain merge`: model folders from GGUF files and from adapters."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def import_model(
    src: Annotated[Path, typer.Argument(help="A .gguf file.")],
    dir: Annotated[Path, typer.Argument(help="Folder to write; must not exist or be empty.")],
) -> None:
    """Turn a GGUF file into a model folder that transformers, peft and `ytrain run` read."""
    from ytrain.models.gguf import import_gguf

    console = Console(soft_wrap=True)
    with console.status(f"reading {src}"):
        import_gguf(src, dir)
    console.print(f"wrote {dir}: name it as model.source (file:// or a claim)")


def merge(
    adapter: Annotated[Path, typer.Argument(help="Folder of a LoRA adapter, such as a run's output.")],
    dir: Annotated[Path, typer.Argument(help="Folder to write; must not exist or be empty.")],
    base: Annotated[
        Path | None, typer.Option(help="Base model.", show_default="the one that the adapter names")
    ] = None,
) -> None:
    """Merge a LoRA adapter into its base model, in float32."""
    from ytrain.models.merge import merge_adapter

    console = Console(soft_wrap=True)
    with console.status(f"merging {adapter}"):
        difference = merge_adapter(adapter, dir, base=base)
    console.print(f"wrote {dir}: its logits differ from the adapter's by {difference:.1e} of the largest one")
