"""Which method a job asks for, and what it says of it."""

from ytrain.methods import cpt, rl, sft
from ytrain.methods.method import Method
from ytrain_api.job import Spec

TRAINING = ("sft", "cpt", "rl")
"""Methods that train a model."""


def chosen_method(spec: Spec) -> Method:
    """The method of a job that trains."""
    if spec.sft is not None:
        return sft.method(spec.sft)
    if spec.cpt is not None:
        return cpt.method(spec.cpt)
    assert spec.rl is not None
    return rl.method(spec.rl)
