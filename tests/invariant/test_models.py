"""The start model, merged adapters and the check before training (float32; tolerances stated in each)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from small_models import random_model, random_samples, segments
from tests.conftest import make_model_folder
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from ytrain.data.rows import build_row
from ytrain.models.export import export
from ytrain.models.language_model import LanguageModel, StartModel
from ytrain.models.load import load_language_model
from ytrain.models.lora import add_adapter, continue_adapter
from ytrain.models.merge import merge_adapter
from ytrain.models.probe import check_packed_forward
from ytrain_api.errors import SpecError, TrainingError

pytestmark = pytest.mark.invariant
CPU = torch.device("cpu")
QWEN2_MOE_WINDOWS = {
    "use_sliding_window": True,
    "sliding_window": 4096,
    "layer_types": ["sliding_attention", "full_attention"],
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}


def adapted(folder: Path) -> LanguageModel:
    """The small model with an adapter that does something."""
    base = load_language_model(folder, compute_dtype=torch.float32, device=CPU, trained=False)
    model = add_adapter(base, rank=4, alpha=8, dropout=0.0, targets=["all-linear"], seed=1)
    move(model)
    return model


def move(model: LanguageModel) -> None:
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.trainable().values():
            parameter.add_(torch.randn_like(parameter) * 0.1)


def test_a_new_adapter_changes_nothing_and_its_weights_are_float32(model_folder: Path) -> None:
    base = load_language_model(model_folder, compute_dtype=torch.float32, device=CPU, trained=False)
    row = build_row(random_samples(), segments(random_samples()))
    with torch.no_grad():
        before = base.hidden(row)
        model = add_adapter(base, rank=4, alpha=8, dropout=0.0, targets=["all-linear"], seed=1)
        assert torch.equal(model.hidden(row), before)
    assert model.trainable() and all("lora_" in name for name in model.trainable())
    assert {parameter.dtype for parameter in model.trainable().values()} == {torch.float32}


@pytest.mark.parametrize(("tied", "target"), [(False, "lm_head"), (True, "lm_head"), (True, "embed_tokens")])
def test_an_adapter_on_the_output_head_is_refused(tmp_path: Path, tied: bool, target: str) -> None:
    folder = make_model_folder(tmp_path, tie_word_embeddings=tied)
    base = load_language_model(folder, compute_dtype=torch.float32, device=CPU, trained=False)
    with pytest.raises(SpecError, match=rf"spec.model.lora.targets: .*{target} is the output head.*leave it out"):
        add_adapter(base, rank=4, alpha=8, dropout=0.0, targets=["q_proj", target], seed=1)


def test_the_start_model_is_the_adapter_switched_off(model_folder: Path) -> None:
    base = load_language_model(model_folder, compute_dtype=torch.float32, device=CPU, trained=False)
    row = build_row(random_samples(), segments(random_samples()))
    with torch.no_grad():
        expected = base.hidden(row)
    model = adapted(model_folder)
    trainable = set(model.trainable())
    model.top.train()
    assert torch.equal(StartModel(model).hidden(row), expected)
    assert (model.hidden(row) - expected).abs().max() > 1e-3
    assert set(model.trainable()) == trainable and model.top.training


def test_the_start_of_a_continued_adapter_is_that_adapter(
    model_folder: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    first = adapted(model_folder)
    export(first, tokenizer, tmp_path / "a", merge=False, samples=[torch.arange(9)], record=lambda *_: None)
    row = build_row(random_samples(), segments(random_samples()))
    with torch.no_grad():
        expected = first.hidden(row)
    base = load_language_model(model_folder, compute_dtype=torch.float32, device=CPU, trained=False)
    model = continue_adapter(base, tmp_path / "a", rank=4, alpha=8, dropout=0.0, targets=["all-linear"])
    trainable = set(model.trainable())
    assert trainable and not any("start" in name for name in trainable)
    with torch.no_grad():
        assert torch.equal(model.hidden(row), expected)
    move(model)
    assert torch.equal(StartModel(model).hidden(row), expected)
    assert (model.hidden(row) - expected).abs().max() > 1e-3
    assert set(model.trainable()) == trainable
    # What is written is the trained adapter alone.
    export(model, tokenizer, tmp_path / "b", merge=False, samples=[torch.arange(9)], record=lambda *_: None)
    assert not (tmp_path / "b/start").exists()


def test_the_start_of_an_adapter_with_an_output_head_of_its_own_keeps_that_head(tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "base", tie_word_embeddings=False)
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM"
    )
    first = load_language_model(folder, compute_dtype=torch.float32, device=CPU, trained=False)
    get_peft_model(first.module, config).save_pretrained(tmp_path / "a")
    base = load_language_model(folder, compute_dtype=torch.float32, device=CPU, trained=False)
    model = continue_adapter(base, tmp_path / "a", rank=4, alpha=8, dropout=0.0, targets=["q_proj"])
    trainable, before = set(model.trainable()), model.head().weight_VD.detach().clone()
    move(model)
    assert torch.equal(StartModel(model).head().weight_VD, before)
    assert not torch.equal(model.head().weight_VD, before)
    assert set(model.trainable()) == trainable and model.head().weight_VD.requires_grad


def test_merged_equals_adapter(model_folder: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Relative to the largest logit, 1e-5."""
    model, ids = adapted(model_folder), torch.arange(40)
    verified = export(model, tokenizer, tmp_path / "out", merge=True, samples=[ids], record=lambda *_: None)
    assert verified.max_logit_difference < 1e-6
    assert verified.merged_max_logit_difference is not None and verified.merged_max_logit_difference < 1e-5
    assert verified.change_from_base is not None and verified.change_from_base > 1e-2
    assert merge_adapter(tmp_path / "out", tmp_path / "merged") < 1e-5
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad(), model.generating() as module:
        expected = module(input_ids=ids[None]).logits
        assert (merged(input_ids=ids[None]).logits - expected).abs().max() < 1e-5 * expected.abs().max()


def test_an_adapter_that_cannot_be_merged_is_told(model_folder: Path, tmp_path: Path) -> None:
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    adapted(model_folder).peft.save_pretrained(adapter)
    wide = make_model_folder(tmp_path / "wide", hidden_size=64)
    with pytest.raises(SpecError, match=r"does not fit its base model, or is damaged: .*size mismatch"):
        merge_adapter(adapter, merged, base=wide)
    with pytest.raises(SpecError, match=r"--base: .* is a LoRA adapter.*startFrom.*ytrain merge"):
        merge_adapter(adapter, merged, base=adapter)
    with pytest.raises(SpecError, match=r"it is a whole model, which needs no merging"):
        merge_adapter(model_folder, merged)
    (tmp_path / "output").symlink_to(adapter)
    with pytest.raises(SpecError, match=rf"has no adapter_config.json; give {tmp_path / 'output'}"):
        merge_adapter(tmp_path, merged)
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(SpecError, match=r"or is damaged: .*incomplete"):
        merge_adapter(adapter, merged, base=model_folder)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(SpecError, match="or is damaged"):
        merge_adapter(adapter, merged)
    assert not merged.exists()


def test_an_output_with_other_logits_is_refused_and_not_left_behind(
    model_folder: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_language_model(model_folder, compute_dtype=torch.float32, device=CPU, trained=True)
    save = type(model.module).save_pretrained

    def corrupting(module: torch.nn.Module, folder: Path) -> None:
        weight = module.get_input_embeddings().weight  # type: ignore[operator, union-attr]
        kept = weight.detach().clone()
        with torch.no_grad():
            weight[:50].mul_(1.5)
            save(module, folder)
            weight.copy_(kept)

    monkeypatch.setattr(type(model.module), "save_pretrained", corrupting)
    with pytest.raises(TrainingError, match="other logits"):
        export(model, tokenizer, tmp_path / "out", merge=False, samples=[torch.arange(9)], record=lambda *_: None)
    assert not list(tmp_path.iterdir())


def test_the_check_passes_families_whose_packing_is_exact() -> None:
    assert check_packed_forward(random_model("qwen3"), packing=True) < 1e-5


def test_the_check_refuses_packing_where_state_leaks_between_samples() -> None:
    """LFM2's convolutions run over the whole row."""
    model = random_model("lfm2", layer_types=["conv", "full_attention"], conv_L_cache=3, block_auto_adjust_ff_dim=False)
    with pytest.raises(SpecError, match=r"data\.packing: false"):
        check_packed_forward(model, packing=True)
    assert check_packed_forward(model, packing=False) < 1e-5


def test_rl_is_not_advised_to_do_without_packing() -> None:
    with pytest.raises(SpecError, match=r"BloomForCausalLM gives other logits in a packed row .*; this method needs"):
        check_packed_forward(random_model("bloom"), packing=True, separable=False)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize(
    ("family", "config", "reason"),
    [
        ("gemma2", {}, r"Gemma2ForCausalLM .* UnsupportedAttention: .* attention soft-capping"),
        ("gpt_oss", {"num_local_experts": 2}, r"GptOssForCausalLM .* UnsupportedAttention: .* attention sinks"),
        ("doge", {}, r"DogeForCausalLM .* UnsupportedAttention: DogeAttention uses a mask of its own"),
        ("nemotron", {}, r"NemotronForCausalLM .* NemotronAttention is not told which .* \(attention\.py, line \d+\)"),
        ("llama4_text", {"num_local_experts": 2}, r"Llama4ForCausalLM .* AttributeError: .*last_hidden_state"),
        ("modernbert-decoder", {}, r"ModernBertDecoderForCausalLM .* TypeError: .*input_ids"),
        # Its masks alone know the window, which is far longer than the samples of the check.
        ("qwen2_moe", QWEN2_MOE_WINDOWS, r"Qwen2MoeForCausalLM gives other logits"),
    ],
)
def test_an_architecture_that_cannot_be_trained_is_refused(
    family: str, config: dict[str, Any], reason: str, packing: bool
) -> None:
    with pytest.raises(SpecError, match=rf"^spec\.model\.source: {reason}.*; take a model of another architecture"):
        check_packed_forward(random_model(family, **config), packing=packing)


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("mistral", {"sliding_window": 4096}),
        ("qwen2_moe", QWEN2_MOE_WINDOWS | {"use_sliding_window": False, "layer_types": ["full_attention"] * 2}),
    ],
)
def test_windows_are_as_before_after_the_check(family: str, config: dict[str, Any]) -> None:
    model = random_model(family, **config)
    before = model.module.config.to_dict()
    windows = [getattr(part, "sliding_window", None) for part in model.module.modules()]
    assert check_packed_forward(model, packing=True) < 1e-5
    assert model.module.config.to_dict() == before
    assert [getattr(part, "sliding_window", None) for part in model.module.modules()] == windows
