"""Which method a job asks for, and what it says of it."""

from ytrain.methods import cpt, sft
from ytrain.methods.method import Method
from ytrain_api.job import Spec

TRAINING = ("sft", "cpt")
"""Methods that learn given tokens."""


def chosen_method(spec: Spec) -> Method:
    """The method of a job that trains."""
    if spec.sft is not None:
        return sft.method(spec.sft)
    assert spec.cpt is not None
    return cpt.method(spec.cpt)
