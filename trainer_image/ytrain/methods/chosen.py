"""Which method a job asks for, and what it says of it."""

from ytrain.methods import corpus, cpt, rl, sft
from ytrain.methods.method import Method
from ytrain_api.job import Spec

TRAINING = ("sft", "cpt", "rl")
"""Methods that train a model."""

AVAILABLE = (*TRAINING, "corpus")


def chosen_method(spec: Spec) -> Method:
    """The method of a job that trains on given tokens, or scores them."""
    if spec.sft is not None:
        return sft.method(spec.sft)
    if spec.cpt is not None:
        return cpt.method(spec.cpt)
    if spec.corpus is not None:
        return corpus.method()
    assert spec.rl is not None
    return rl.method(spec.rl)
