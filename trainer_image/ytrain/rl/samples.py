"""Sample trees as a run keeps them for its report: `samples/step-000001.json`, the first prompt of some steps."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from ytrain.rl.credit import Group
from ytrain.rl.prompts import Prompt
from ytrain.rl.rewards import Failure
from ytrain.training.run_folder import write_json


def write_samples(folder: Path, step: int, prompt: Prompt, group: Group, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the tree of a step; one that a resumed run repeats is written again."""
    folder.mkdir(exist_ok=True)
    write_json(folder / f"step-{step:06d}.json", as_json(step, prompt, group, tokenizer))


def as_json(step: int, prompt: Prompt, group: Group, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The tree: nodes with their text, leaves with what they were worth."""
    tree = group.tree

    def leaf(number: int) -> dict[str, Any]:
        outcome = group.outcomes[number]
        return {
            "node": number,
            "mass": tree.leaves[number].mass,
            "ended": tree.leaves[number].ended,
            "reward": None if isinstance(outcome, Failure) else outcome,
            "failure": outcome.reason if isinstance(outcome, Failure) else None,
        }

    return {
        "step": step,
        "place": prompt.place,
        "prompt": prompt.text,
        "nodes": [
            {
                "parent": node.parent,
                "tokens": len(node.tokens),
                "entropy": float(node.entropy[0]),
                "text": str(tokenizer.decode(node.tokens.tolist(), skip_special_tokens=False)),
            }
            for node in tree.nodes
        ],
        "leaves": [leaf(number) for number in tree.leaves],
    }
