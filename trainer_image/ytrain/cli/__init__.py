"""The command line: `ytrain run | launcher | worker | check | merge | report | crd | model import`.

Each command parses its arguments, calls one function of the library, and prints; failures become exit codes in main.py.
"""

from ytrain.cli.main import main

__all__ = ["main"]
