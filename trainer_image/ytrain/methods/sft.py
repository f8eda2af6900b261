"""Supervised fine-tuning: the answers of conversations are learned, and weighted by token."""

from ytrain.methods.method import Method, OtherModel
from ytrain_api.sft import Sft


def method(sft: Sft) -> Method:
    """What `spec.sft` asks for."""
    teacher = sft.teacher
    return Method(
        kind="chat",
        overlong="skip",
        loss=sft.loss,
        supervise=sft.supervise,
        window_tokens=sft.window.tokens if sft.window else None,
        anchor_weight=sft.base_anchor.weight if sft.base_anchor else 0.0,
        teacher=OtherModel("spec.sft.teacher.source", teacher.source) if teacher else None,
        teacher_share=teacher.weight if teacher else 0.0,
    )
