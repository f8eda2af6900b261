"""The learning rate of a step as a pure function, so that a resumed run needs no scheduler state."""

import math
from typing import Literal

ScheduleKind = Literal["cosine", "linear", "constant"]


def learning_rate(step: int, total_steps: int, *, peak: float, kind: ScheduleKind, warmup_fraction: float) -> float:
    """The rate of optimizer step `step` (from 1 to `total_steps`).

    It rises linearly over the first `warmup_fraction` of the steps, reaches `peak`, and then stays, or falls towards 0
    (the step after the last one would have 0, so the last step still trains).
    """
    warmup_steps = math.ceil(warmup_fraction * total_steps)
    if step <= warmup_steps:
        return peak * step / warmup_steps
    done = (step - 1 - warmup_steps) / max(1, total_steps - warmup_steps)
    if kind == "constant":
        return peak
    return peak * (1 - done) if kind == "linear" else peak * 0.5 * (1 + math.cos(math.pi * done))
