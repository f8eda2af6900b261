"""Sampling with vLLM, in a process of its own beside each rank: only `worker.py`, which runs there, imports vLLM."""
