"""Which method a job asks for, and what it says of it."""

from ytrain.methods import corpus, cpt, rl, sft
from ytrain.methods.method import Method
from ytrain_api.job import Spec

TRAINING = ("sft", "cpt", "rl")
"""Methods that train a model."""


def chosen_method(spec: Spec) -> Method:
    """What a job does with its records, in the words that all methods share."""
    if spec.sft is not None:
        return sft.method(spec.sft)
    if spec.cpt is not None:
        return cpt.method(spec.cpt)
    if spec.corpus is not None:
        return corpus.method()
    assert spec.rl is not None
    return rl.method(spec.rl)
