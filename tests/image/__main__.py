"""`python -m tests.image [trainer] [operator]`: build what is not built yet, and say where the archives are."""

import argparse
import sys
import time
from pathlib import Path

from tests.image.build import Settings, build
from tests.image.builders import BuildError
from tests.image.content import SOURCES


def main() -> int:
    """Build the targets that were named, or all."""
    parser = argparse.ArgumentParser(prog="make image", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(SOURCES)}; default: all")
    targets: list[str] = parser.parse_args().targets
    if unknown := set(targets) - set(SOURCES):
        parser.error(f"{', '.join(sorted(unknown))}: no such target; there are {', '.join(SOURCES)}")
    settings = Settings.from_environment()
    for target in targets or SOURCES:
        began = time.monotonic()
        try:
            image = build(target, settings)
        except BuildError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(f"{image.short_name}  {_size(image.archive)}  {time.monotonic() - began:.0f} s\n  {image.archive}")
    return 0


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.0f} MB"


sys.exit(main())
