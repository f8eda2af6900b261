"""The trainer: what runs in the pods, and on a laptop."""

from importlib.metadata import version

__version__ = version("ytrain")
