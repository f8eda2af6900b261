"""The two commands that every generated file needs: write it, or fail when it is stale."""

import argparse
from pathlib import Path


def write_or_check(text: str, default: Path, about: str, arguments: list[str] | None = None) -> int:
    """Write `text` to the file named on the command line, or compare it with `--check`.

    Returns the exit code: 1 when the file is stale.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("path", nargs="?", type=Path, default=default, help=f"the file (default: {default})")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the file is stale")
    options = parser.parse_args(arguments)
    path: Path = options.path
    if not options.check:
        path.write_text(text, encoding="utf-8")
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        print(f"{path}: stale; it is generated from the models, run the same command without --check")
        return 1
    return 0
