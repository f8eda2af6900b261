"""Trains with TRL's GRPOTrainer as the rival of compare_rl.py, in an environment of its own (requirements/bench.txt).

It writes what a ytrain run leaves behind: a line per optimizer step in `metrics.jsonl`, and the adapter in `output/`.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer


class Meter(TrainerCallback):
    """Writes a line for every optimizer step: tokens sampled, mean reward, seconds from the end of the step before."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w", encoding="utf-8")
        self.answers: list[tuple[int, float]] = []
        """Tokens and reward of each answer of this step."""

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.since = time.perf_counter()

    def on_step_end(self, _args: Any, state: Any, _control: Any, **__: Any) -> None:
        now = time.perf_counter()
        line = {
            "step": state.global_step,
            "tokens": sum(tokens for tokens, _ in self.answers),
            "reward": sum(reward for _, reward in self.answers) / len(self.answers),
            "seconds": now - self.since,
        }
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        self.answers, self.since = [], now


def reward_function(path: Path, meter: Meter) -> Callable[..., list[float]]:
    """The job's `score(prompt, answer, record)`, in the form that TRL calls."""
    names: dict[str, Any] = {}
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), names)

    def rewards(
        prompts: list[Any], completions: list[Any], completion_ids: list[list[int]], messages: list[Any], **_: Any
    ) -> list[float]:
        scores = [
            float(names["score"](prompt[-1]["content"], completion[-1]["content"], {"messages": chat}))
            for prompt, completion, chat in zip(prompts, completions, messages, strict=True)
        ]
        meter.answers += [(len(ids), score) for ids, score in zip(completion_ids, scores, strict=True)]
        return scores

    return rewards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--reward", type=Path, required=True, help="a file that defines score(prompt, answer, record)")
    parser.add_argument("--folder", type=Path, required=True, help="where metrics.jsonl and output/ go")
    parser.add_argument("--prompts", type=int, required=True, help="of a step")
    parser.add_argument("--chains", type=int, required=True, help="answers to each")
    parser.add_argument("--micro-batch", type=int, required=True, help="answers of a forward and backward pass")
    parser.add_argument("--max-new-tokens", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    records = [json.loads(line)["messages"] for line in options.data.read_text(encoding="utf-8").splitlines()]
    answers = options.prompts * options.chains
    config = GRPOConfig(
        output_dir=str(options.folder / "trainer"),
        max_steps=options.steps,
        per_device_train_batch_size=options.micro_batch,
        gradient_accumulation_steps=answers // options.micro_batch,
        num_generations=options.chains,
        max_completion_length=options.max_new_tokens,
        temperature=1.0,
        beta=0.0,
        loss_type="dapo",
        learning_rate=options.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=options.steps // 10,
        weight_decay=0.01,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        seed=options.seed,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        model_init_kwargs={"dtype": torch.float32},
    )
    meter = Meter(options.folder / "metrics.jsonl")
    trainer = GRPOTrainer(
        model=str(options.model),
        args=config,
        reward_funcs=reward_function(options.reward, meter),
        train_dataset=Dataset.from_list([{"prompt": chat[:-1], "messages": chat} for chat in records]),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[meter],
    )
    trainer.train()
    meter.file.close()
    trainer.save_model(str(options.folder / "output"))


if __name__ == "__main__":
    main()
