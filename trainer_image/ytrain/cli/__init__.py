"""The command line: `ytrain run | check | merge | report | model import | crd`.

Each command parses its arguments, calls one function of the library, and prints; failures become exit codes in main.py.
"""

from ytrain.cli.main import main

__all__ = ["main"]
