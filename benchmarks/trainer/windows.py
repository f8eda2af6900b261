"""`sft.window: {tokens: 10}` on one long answer: ytrain against a full forward pass for every window.

Both start from the same model and take the same optimizer steps, so the weights they end with must agree. Each has a
process of its own with the same threads. With its tiny Llama it takes about a minute on two cores; with
`--model .quickstart/models/SmolLM2-135M-Instruct`, whose vocabulary has a real size, about an hour.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import torch
from compare import YTRAIN, thread_environment
from competitor import run as run_competitor
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WINDOW = 10
PROMPT_WORDS = 100
ANSWER_TOKENS = (100, 500, 1000)
LEARNING_RATE = 1e-4
SPECIAL = ["<unk>", "<eos>", "<user>", "<assistant>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}> {{ message.content }} <eos> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
VOCABULARY = SPECIAL + [f"w{number}" for number in range(996)]


def write_model(folder: Path) -> None:
    """A random Llama of hidden width 128, 4 layers and 1,000 words, with a tokenizer of one token a word."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(VOCABULARY),
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=VOCABULARY.index("<eos>"),
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", unk_token="<unk>")
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)


def write_sample(path: Path, model_folder: Path, answer_tokens: int) -> None:
    """A record of random words, each of which is one token, whose answer with its end of turn has `answer_tokens`."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    words = [word.lstrip("Ġ") for word in sorted(tokenizer.get_vocab())]
    words = [w for w in words if w.isalnum() and len(tokenizer(f"{w} {w}", add_special_tokens=False).input_ids) == 2]
    choice = random.Random(answer_tokens).choices(words, k=PROMPT_WORDS + answer_tokens)
    prompt, answer = " ".join(choice[:PROMPT_WORDS]), choice[PROMPT_WORDS:]
    prefix, ids = chat_ids(tokenizer, prompt, " ".join(answer))
    answer = answer[: answer_tokens - (len(ids) - prefix)]  # the end of the turn counts as well
    prefix, ids = chat_ids(tokenizer, prompt, " ".join(answer))
    assert len(ids) - prefix == answer_tokens
    path.write_text(json.dumps({"prompt": prompt, "response": " ".join(answer)}) + "\n", encoding="utf-8")


def chat_ids(tokenizer: PreTrainedTokenizerFast, prompt: str, answer: str) -> tuple[int, list[int]]:
    """The number of the prompt's tokens, and all tokens to the end of the answer's turn."""
    asked = [{"role": "user", "content": prompt}]
    chat = [*asked, {"role": "assistant", "content": answer}]
    prefix = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
    ids = tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"]
    while ids[-1] != tokenizer.eos_token_id:  # a template may end its turn with a line break, which nobody learns
        ids.pop()
    return len(prefix), ids


def full_forward(model_folder: Path, data: Path, folder: Path) -> None:
    """The published way: the whole sample and all its logits for every window."""
    record = json.loads(data.read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    prefix, ids = chat_ids(tokenizer, record["prompt"], record["response"])
    ids_1T = torch.tensor([ids])
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    with (folder / "metrics.jsonl").open("w", encoding="utf-8") as metrics:
        for first in range(prefix, len(ids), WINDOW):
            start = time.perf_counter()
            logits_TV = model(ids_1T, use_cache=False).logits[0]
            last = min(first + WINDOW, len(ids))
            cross_entropy(logits_TV[first - 1 : last - 1], ids_1T[0, first:last]).backward()
            optimizer.step()
            optimizer.zero_grad()
            line = {"tokens": len(ids), "supervisedTokens": last - first, "seconds": time.perf_counter() - start}
            metrics.write(json.dumps(line) + "\n")
    model.save_pretrained(folder / "output")


def job(model_folder: Path, data: Path) -> dict[str, object]:
    """The same steps as a YTrainJob."""
    optimization = {"learningRate": LEARNING_RATE, "epochs": 1, "schedule": "constant", "warmupFraction": 0}
    spec = {
        "model": {"source": f"file://{model_folder}", "precision": "float32"},
        "data": {"train": [{"source": f"file://{data}"}], "maxTokens": 2048},
        "sft": {"loss": {"kind": "crossEntropy"}, "window": {"tokens": WINDOW}},
        "optimization": {**optimization, "weightDecay": 0, "gradientClip": 0},
        "workers": {"deviceResource": "none"},
    }
    return {"apiVersion": "ytrain.io/v1alpha1", "kind": "YTrainJob", "metadata": {"name": "windows"}, "spec": spec}


def steady(command: list[str], folder: Path, threads: int, answer_tokens: int) -> tuple[float, int]:
    """Runs a competitor: seconds of all its steps but the first, and the tokens that all of them forwarded."""
    metrics = folder / "metrics.jsonl"
    measurement = run_competitor(command, metrics, thread_environment(threads), folder.with_suffix(".log"))
    steps = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    assert sum(step["supervisedTokens"] for step in steps) == answer_tokens
    return measurement.seconds, sum(step["tokens"] for step in steps)


def difference(start: Path, ours: Path, reference: Path) -> float:
    """Distance of the two trained models as a share of how far training moved the weights."""
    models = (AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for path in (start, ours, reference))
    before, trained, expected = (torch.cat([part.flatten() for part in m.state_dict().values()]) for m in models)
    return float((trained - expected).norm() / (expected - before).norm())


def compare(folder: Path, model: Path | None, lengths: list[int], threads: int) -> None:
    """Prints a line for each length of the answer."""
    if model is None:
        model = folder / "model"
        write_model(model)
    print("| answer tokens | full forward, s | ytrain, s | faster | forwarded tokens | ytrain's | difference |")
    print("|---|---|---|---|---|---|---|")
    for answer_tokens in lengths:
        data, job_file = folder / f"{answer_tokens}.jsonl", folder / f"{answer_tokens}.yaml"
        ours, full = folder / f"ytrain-{answer_tokens}", folder / f"full-{answer_tokens}"
        write_sample(data, model, answer_tokens)
        job_file.write_text(json.dumps(job(model, data)), encoding="utf-8")
        full.mkdir()
        naive = [sys.executable, __file__, "--full-forward", str(model), str(data), str(full)]
        run = [str(YTRAIN), "run", str(job_file), "--workdir", str(ours), "--device", "cpu"]
        full_seconds, full_tokens = steady(naive, full, threads, answer_tokens)
        our_seconds, our_tokens = steady([*run, "--cache", str(folder / "cache")], ours, threads, answer_tokens)
        apart = difference(model, ours / "output", full / "output")
        print(
            f"| {answer_tokens} | {full_seconds:.2f} | {our_seconds:.2f} | {full_seconds / our_seconds:.2f}x"
            f" | {full_tokens:,} | {our_tokens:,} | {apart:.1e} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, help="for models, data and runs; must not exist (default: a temporary one)"
    )
    parser.add_argument("--model", type=Path, help="a model folder (default: a tiny random Llama)")
    parser.add_argument("--answer-tokens", type=int, nargs="+", default=list(ANSWER_TOKENS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--full-forward", nargs=3, type=Path, metavar=("MODEL", "DATA", "FOLDER"), help="be that competitor"
    )
    arguments = parser.parse_args()
    if arguments.full_forward:
        full_forward(*arguments.full_forward)
        return
    if arguments.folder:
        arguments.folder.mkdir(parents=True)
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="ytrain-bench-"))).resolve()
    model = arguments.model and arguments.model.resolve()
    compare(folder, model, arguments.answer_tokens, arguments.threads)


if __name__ == "__main__":
    main()
