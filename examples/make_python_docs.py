"""Makes the corpus of the continued pre-training example: the Python language reference, which every Python carries.

Run it with `python examples/make_python_docs.py OUT_DIR`; a text file for each topic, in `train/` and `held-out/`.
"""

import argparse
from pathlib import Path
from pydoc_data.topics import topics  # type: ignore[import-untyped]

HELD_OUT_EVERY = 12
"""One topic of so many is never trained on, and shows whether the domain was learned."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="OUT_DIR", help="made if absent; files of the same name go")
    folder: Path = parser.parse_args().folder
    for number, (name, text) in enumerate(sorted(topics.items())):
        part = "held-out" if number % HELD_OUT_EVERY == HELD_OUT_EVERY // 2 else "train"
        path = folder / part / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.strip() + "\n", encoding="utf-8")
    for part in ("train", "held-out"):
        files = list((folder / part).iterdir())
        print(f"{folder / part}: {len(files)} texts, {sum(path.stat().st_size for path in files):,} bytes")


if __name__ == "__main__":
    main()
