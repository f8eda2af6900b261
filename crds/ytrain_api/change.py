"""What of a job's spec may change after creation: rules on `oldSelf` that the API server runs at every update.

Mutable are suspend, policy and queue, epochs and maxSteps upwards, and the number of workers while suspended.
"""

from ytrain_api.base import Rule
from ytrain_api.optimization import Optimization

_NEW_JOB = (
    "is fixed once the job exists; create a new job, with model.source set to this one's output.target to go on from it"
)


def _same(field: str, *, optional: bool) -> str:
    """The expression that says that a field, which may be absent, is what it was."""
    equal = f"self.{field} == oldSelf.{field}"
    return f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || {equal})" if optional else equal


def _fixed(name: str, *, optional: bool) -> Rule:
    return Rule(_same(name, optional=optional), f"{name} {_NEW_JOB}", f".{name}")


def _optimization_fixed() -> Rule:
    same = [
        _same(f"optimization.{field.alias}", optional=field.default is None)
        for name, field in Optimization.model_fields.items()
        if name not in ("epochs", "max_steps")
    ]
    return Rule(
        " && ".join(f"({expression})" for expression in same),
        f"optimization (but for epochs and maxSteps) {_NEW_JOB}",
        ".optimization",
    )


RULES_OF_CHANGE = (
    *(_fixed(name, optional=False) for name in ("model", "data", "evaluation", "checkpoint", "output", "launcher")),
    *(_fixed(name, optional=True) for name in ("sft", "cpt", "rl", "corpus", "deepspeed", "storage", "image")),
    _fixed("secrets", optional=False),
    _optimization_fixed(),
    Rule(
        "self.optimization.epochs >= oldSelf.optimization.epochs",
        "epochs can only be raised once the job exists",
        ".optimization.epochs",
    ),
    Rule(
        "has(oldSelf.optimization.maxSteps) ? "
        "(!has(self.optimization.maxSteps) || self.optimization.maxSteps >= oldSelf.optimization.maxSteps) : "
        "!has(self.optimization.maxSteps)",
        "maxSteps can only be raised or removed once the job exists",
        ".optimization.maxSteps",
    ),
    Rule(
        "oldSelf.suspend || (self.workers.replicas == oldSelf.workers.replicas && "
        "has(self.workers.minReplicas) == has(oldSelf.workers.minReplicas) && "
        "(!has(self.workers.minReplicas) || self.workers.minReplicas == oldSelf.workers.minReplicas))",
        "the number of workers can change while the job is suspended; set suspend: true first",
        ".workers.replicas",
    ),
    Rule(
        "self.workers.devices == oldSelf.workers.devices && "
        "self.workers.deviceResource == oldSelf.workers.deviceResource && "
        "self.workers.resources == oldSelf.workers.resources && "
        "self.workers.template == oldSelf.workers.template",
        f"workers (but for replicas and minReplicas) {_NEW_JOB}",
        ".workers",
    ),
)
