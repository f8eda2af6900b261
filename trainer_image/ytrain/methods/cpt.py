"""Continued pre-training: every token of the texts is learned, or those that a reference model finds worth it."""

from ytrain.methods.method import Method, OtherModel
from ytrain_api.cpt import Cpt


def method(cpt: Cpt) -> Method:
    """What `spec.cpt` asks for."""
    selection = cpt.selection
    return Method(
        kind="text",
        overlong="split",
        loss=cpt.loss,
        whole_rows=True,
        reference=OtherModel("spec.cpt.selection.referenceModel", selection.reference_model) if selection else None,
        keep_fraction=selection.keep_fraction if selection else 1.0,
    )
