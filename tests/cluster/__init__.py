"""A real Kubernetes on one machine, for tests and demonstrations: two nodes with containerd, or none with kwok.

`python -m tests.cluster --help` says what it can do; `docs/cluster.md` says how it is used.
"""
