"""Corpus analysis: every record that can be trained on is scored, and the model is not changed."""

from ytrain.methods.method import Method
from ytrain_api.job import Spec
from ytrain_api.loss import TokenLoss


def method() -> Method:
    """What `spec.corpus` reads: chats by their answers, texts by all their tokens."""
    return Method(kind="any", overlong="skip", loss=TokenLoss())


def ignored_fields(spec: Spec) -> list[str]:
    """What a corpus job would ignore, each with what to do about it."""
    data, evaluation = spec.data, spec.evaluation
    return [
        f"{field}: a corpus job {words}"
        for field, given, words in (
            ("spec.model.lora", spec.model.lora is not None, "trains no adapter; remove it"),
            ("spec.deepspeed", spec.deepspeed is not None, "updates no weights; remove it"),
            ("spec.data.validation", bool(data.validation), "scores data.train only; remove it or name it there"),
            ("spec.data.train.repeat", any(s.repeat != 1 for s in data.train), "scores each record once; remove it"),
            ("spec.evaluation.tasks", bool(evaluation.tasks), "has no before and after; remove it"),
            ("spec.evaluation.retention", bool(evaluation.retention), "has no before and after; remove it"),
        )
        if given
    ]
