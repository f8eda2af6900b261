"""Where models and data come from: URIs of the job file resolved to local files, fetched where need be.

Knows places, not contents: which file types are data is the caller's word.
"""

from ytrain.sources.resolver import DataFiles, Resolved, Sources

__all__ = ["DataFiles", "Resolved", "Sources"]
