"""The one error of this package: something that the person at the terminal has to know or do."""


class ClusterError(Exception):
    """Says what failed, where, and what to do next."""
