"""Trains with TRL's SFTTrainer as one competitor of compare.py, in an environment of its own (requirements/bench.txt).

It writes what a ytrain run leaves behind: a line per optimizer step in `metrics.jsonl`, and the model under `output/`.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer


class MeteredTrainer(SFTTrainer):
    """Counts the tokens of each micro-batch that are no padding."""

    tokens = 0

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        mask = inputs.get("attention_mask")
        self.tokens += int(inputs["input_ids"].numel() if mask is None else mask.sum())
        return super().training_step(model, inputs, num_items_in_batch)


class Meter(TrainerCallback):
    """Writes a line for every optimizer step: its tokens, and its seconds from the end of the step before."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8")
        self.trainer: MeteredTrainer | None = None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.since = time.perf_counter()

    def on_step_end(self, _args: Any, state: Any, _control: Any, **__: Any) -> None:
        assert self.trainer is not None
        now = time.perf_counter()
        line = {"step": state.global_step, "tokens": self.trainer.tokens, "seconds": now - self.since}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        self.trainer.tokens, self.since = 0, now


def build(options: argparse.Namespace) -> tuple[MeteredTrainer, Meter]:
    """The trainer with the settings that were fastest here (benchmarks/README.md), and its meter."""
    torch.set_num_threads(options.threads)
    config = SFTConfig(
        output_dir=str(options.folder / "trainer"),
        num_train_epochs=1,
        max_steps=options.max_steps,
        per_device_train_batch_size=options.batch,
        gradient_accumulation_steps=options.accumulation,
        packing=options.packing,
        packing_strategy=options.packing_strategy,
        padding_free=options.padding_free,
        max_length=None if options.padding_free and not options.packing else options.max_tokens,
        train_sampling_strategy="group_by_length" if options.group_by_length else "random",
        learning_rate=options.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.01,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        gradient_checkpointing=options.gradient_checkpointing,
        torch_compile=options.compile,
        bf16=False,
        use_cpu=True,
        seed=0,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        model_init_kwargs={"dtype": torch.float32, "attn_implementation": options.attention},
    )
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    options.folder.mkdir(parents=True, exist_ok=True)
    meter = Meter(options.folder / "metrics.jsonl")
    trainer = MeteredTrainer(
        model=str(options.model),
        args=config,
        train_dataset=load_dataset("json", data_files=str(options.data), split="train"),
        peft_config=lora if options.method == "lora" else None,
        callbacks=[meter],
    )
    meter.trainer = trainer
    return trainer, meter


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where metrics.jsonl and output/ go")
    parser.add_argument("--method", choices=("lora", "full"), required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--packing", action="store_true")
    parser.add_argument(
        "--packing-strategy", default="bfd", help="bfd cuts a long text's end off, bfd_split cuts it up"
    )
    parser.add_argument("--padding-free", action="store_true")
    parser.add_argument("--group-by-length", action="store_true")
    parser.add_argument("--batch", type=int, default=1, help="rows of a micro-batch")
    parser.add_argument("--accumulation", type=int, default=4, help="micro-batches of an optimizer step")
    parser.add_argument("--attention", choices=("sdpa", "eager", "flex_attention"), default="sdpa")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args()


def main() -> None:
    options = parse()
    trainer, meter = build(options)
    trainer.train()
    meter.file.close()
    trainer.save_model(str(options.folder / "output"))


if __name__ == "__main__":
    main()
