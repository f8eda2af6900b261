"""Reinforcement learning from job file to output: it learns what is rewarded, resumes exactly, tells what is wrong."""

import json
import re
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import Commands
from run_folders import checkpoints, load_model, read_lines, saved, steps_written, write_job
from tests.conftest import byte_tokenizer, make_model_folder, write_chats

pytestmark = pytest.mark.e2e

PLAIN = "def score(prompt, answer, record):\n    return sum(c.isascii() for c in answer) / 6\n"
TREE = {"rounds": 1, "forks": 2, "branches": 2, "pruning": {"lookaheadTokens": 2}}
RL: dict[str, Any] = {
    "reward": {"python": {"source": "file://./reward.py:score"}},
    "rollout": {"promptsPerStep": 4, "chains": 3, "maxNewTokens": 6},
    "tree": TREE,
}
JOB: dict[str, Any] = {
    "sft": ...,
    "rl": RL,
    "model.lora": {"rank": 4},
    "optimization": {"learningRate": 2e-2, "epochs": 2},
    "checkpoint": {"everySteps": 2},
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with 16 prompts and a reward: how many characters of the answer are ASCII."""
    write_chats(tmp_path / "chats.jsonl", 16)
    (tmp_path / "reward.py").write_text(PLAIN)
    return tmp_path


def course(run: Path) -> list[dict[str, Any]]:
    """The lines of a run, but for what its clock measured."""
    lines = read_lines(run / "metrics.jsonl")
    for line in lines:
        for clocked in ("seconds", "tokensPerSecond", "peakMemoryBytes"):
            del line[clocked]
        for clocked in ("sampleSeconds", "rewardSeconds"):
            del line["rl"][clocked]
    return lines


def test_a_run_leaves_figures_samples_and_a_model(ytrain: Commands, place: Path, model_folder: Path) -> None:
    task = {"name": "same", "source": "file://./chats.jsonl", "samples": 4, "maxNewTokens": 4}
    write_job(place, model_folder, {**JOB, "evaluation.tasks": [task]})
    ytrain(place, "check", "tiny.yaml").expect(0, "16 prompts", "4 prompts a step, up to 28 answers", "reward ")
    ytrain(place, "run", "tiny.yaml").expect(0, "done, 8 steps")
    run = place / "runs/tiny"
    for line in course(run):
        rl = line["rl"]
        assert rl["groups"] == 4 and rl["leaves"] <= 4 * (3 + 2 * 2) and rl["failedRewards"] == 0
        assert rl["logProbGap"] < 1e-4 and rl["clipFraction"] == 0
    samples = json.loads((run / "samples/step-000001.json").read_text())
    assert len(samples["leaves"]) > 3 and all(leaf["reward"] is not None for leaf in samples["leaves"])
    result = json.loads((run / "result.json").read_text())
    assert result["output"]["verified"]["changeFromBase"] > 0
    assert "Prompts with mixed rewards" in (run / "report.html").read_text()
    assert (run / "output/adapter_model.safetensors").is_file()


def test_an_anchor_holds_the_policy_to_its_start(ytrain: Commands, place: Path, model_folder: Path) -> None:
    moved = {}
    for name, anchor in (("free", None), ("mild", {"weight": 0.02}), ("held", {"weight": 5.0})):
        write_job(place, model_folder, JOB | {"rl": RL | {"objective": {"baseAnchor": anchor}}}, name=name)
        ytrain(place, "run", f"{name}.yaml").expect(0)
        moved[name] = course(place / "runs" / name)[-1]["rl"]["klToStart"]
    assert 2 * moved["held"] < moved["mild"] < moved["free"], moved


def test_what_is_rewarded_becomes_likely(ytrain: Commands, place: Path, model_folder: Path) -> None:
    """A bandit of 258 arms: one token, of which the space is worth 1 and everything else nothing."""
    (place / "reward.py").write_text("def score(answer, **rest):\n    return float(answer.startswith(' '))\n")
    rl = {"reward": RL["reward"], "rollout": {"promptsPerStep": 8, "chains": 48, "maxNewTokens": 1}}
    optimization = {"learningRate": 2e-2, "epochs": 20, "schedule": "constant"}
    write_job(place, model_folder, {"sft": ..., "rl": rl, "optimization": optimization})
    ytrain(place, "run", "tiny.yaml").expect(0)
    rewards = [line["rl"]["rewardMean"] for line in course(place / "runs/tiny")]
    assert rewards[0] < 0.1 and min(rewards[-5:]) > 0.95
    load_model(place / "runs/tiny/output")


def test_what_says_nothing_here_is_told(ytrain: Commands, place: Path, model_folder: Path) -> None:
    optimization = JOB["optimization"] | {"maxSteps": 1, "batchSequences": 4}
    write_job(place, model_folder, JOB | {"optimization": optimization, "secrets": ["team"]})
    told = ("optimization.batchSequences: ignored", "spec.secrets: team is not in the job file")
    ytrain(place, "check", "tiny.yaml").expect(0, *told)
    ytrain(place, "run", "tiny.yaml").expect(0, *(f"warning: {words}" for words in told))


@pytest.mark.parametrize(("updates", "processes"), [(1, "1"), (2, "1"), (1, "2")])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    ytrain: Commands, place: Path, model_folder: Path, updates: int, processes: str
) -> None:
    rollout = RL["rollout"] | {"updates": updates}
    write_job(place, model_folder, JOB | {"rl": RL | {"rollout": rollout}})
    run = ("run", "tiny.yaml", "--processes", processes, "--workdir")
    ytrain(place, *run, "whole").expect(0)
    command = ytrain.start(place, *run, "stopped")
    ended = command.until(partial(_has_steps, place / "stopped", 3)).send(signal.SIGTERM).wait()
    assert ended.code == 143 and checkpoints(place / "stopped")
    ytrain(place, *run, "stopped").expect(0, "going on from")
    assert course(place / "stopped") == course(place / "whole")
    assert len({line["gradientNorm"] for line in course(place / "whole")}) == 8


def test_a_killed_run_goes_on_from_its_checkpoint(ytrain: Commands, place: Path, model_folder: Path) -> None:
    """Answers that were sampled and not yet learned are sampled again, and are the same."""
    write_job(place, model_folder, JOB)
    ytrain(place, "run", "tiny.yaml", "--workdir", "whole").expect(0)
    command = ytrain.start(place, "run", "tiny.yaml", "--workdir", "killed")
    command.until(lambda: _has_steps(place / "killed", 3) and saved(place / "killed")).send(signal.SIGKILL).wait()
    ytrain(place, "run", "tiny.yaml", "--workdir", "killed").expect(0, "going on from")
    assert course(place / "killed") == course(place / "whole")


def _has_steps(run: Path, steps: int) -> bool:
    return steps_written(run) >= steps


@pytest.mark.parametrize(("advantage", "prompts"), [("tree", 4), ("reinforcePlusPlus", 4), ("reinforcePlusPlus", 1)])
def test_two_ranks_learn_what_one_learns(
    ytrain: Commands, place: Path, model_folder: Path, advantage: str, prompts: int
) -> None:
    """With one prompt a step, one of them has nothing to do."""
    rl = RL | {"objective": {"advantage": advantage, "gate": "entropy"}}
    rl["rollout"] = RL["rollout"] | {"promptsPerStep": prompts}
    write_job(place, model_folder, JOB | {"rl": rl, "optimization.maxSteps": 3})
    for processes in (1, 2):
        ytrain(place, "run", "tiny.yaml", "--workdir", f"{processes}", "--processes", f"{processes}").expect(0)
    for one, two in zip(course(place / "1"), course(place / "2"), strict=True):
        for name in ("loss", "gradientNorm", "supervisedTokens"):
            assert one[name] == pytest.approx(two[name], rel=1e-3, abs=1e-6), name
        for name in ("rewardMean", "rewardDeviation", "leaves", "sampledTokens", "entropy"):
            assert one["rl"][name] == pytest.approx(two["rl"][name], rel=1e-4), name


@pytest.mark.parametrize(("lora", "prompts"), [({"rank": 4}, 4), (None, 1)], ids=["lora", "full, one rank idle"])
def test_sharded_weights_learn_what_whole_ones_learn(
    ytrain: Commands, place: Path, model_folder: Path, lora: dict[str, Any] | None, prompts: int
) -> None:
    """ZeRO 1 and 3 on two ranks against plain torch on one; a rank that has fewer rows keeps step with the other."""
    anchor = {"baseAnchor": {"weight": 0.5}} if lora else {}
    rl = RL | {"rollout": RL["rollout"] | {"promptsPerStep": prompts, "updates": 2}, "objective": anchor}
    partitioned = {"zero_optimization": {"stage3_param_persistence_threshold": 0}}
    blocks = {"torch": None, "zero1": {"zeroStage": 1}, "zero3": {"zeroStage": 3, "config": partitioned}}
    for kind, block in blocks.items():
        changes = {"rl": rl, "model.lora": lora, "optimization.maxSteps": 3, "deepspeed": block}
        write_job(place, model_folder, JOB | changes, name=kind)
        processes = "1" if kind == "torch" else "2"
        ytrain(place, "run", f"{kind}.yaml", "--processes", processes).expect(0, "done, 3 steps")
    expected = course(place / "runs/torch")
    for kind in ("zero1", "zero3"):
        for one, two in zip(expected, course(place / "runs" / kind), strict=True):
            for name in ("loss", "gradientNorm", "supervisedTokens"):
                assert one[name] == pytest.approx(two[name], rel=1e-3, abs=1e-6), name
            for name in ("rewardMean", "leaves", "sampledTokens", "entropy"):
                assert one["rl"][name] == pytest.approx(two["rl"][name], rel=1e-4), name
            assert two["rl"]["largestLogProbGap"] is None or two["rl"]["largestLogProbGap"] < 1e-4
            assert (two["rl"]["klToStart"] is not None) == (lora is not None)


@pytest.mark.parametrize("gate", ["entropy", "nlirg"])
def test_the_length_of_rows_changes_nothing(ytrain: Commands, place: Path, model_folder: Path, gate: str) -> None:
    rl = RL | {"rollout": RL["rollout"] | {"maxNewTokens": 20}, "objective": {"gate": gate}}
    for tokens in (128, 512):
        changes = JOB | {"rl": rl, "data.maxTokens": tokens, "optimization.maxSteps": 2}
        write_job(place, model_folder, changes, name=f"rows-{tokens}")
        ytrain(place, "run", f"rows-{tokens}.yaml").expect(0)
    for short, long in zip(course(place / "runs/rows-128"), course(place / "runs/rows-512"), strict=True):
        assert short["tokens"] > long["tokens"], "trees are trained in parts, which share their prompts"
        for name in ("loss", "gradientNorm", "supervisedTokens"):
            assert short[name] == pytest.approx(long[name], rel=1e-3, abs=1e-6), name


def test_a_model_with_dropout_and_a_strange_record_train_on_policy(ytrain: Commands, place: Path) -> None:
    folder = make_model_folder(place / "model", attention_dropout=0.5)
    record = {"id": "\ud83d", "prompt": "what is 3?", "response": "3"}
    (place / "chats.jsonl").write_text((json.dumps(record) + "\n") * 4)
    write_job(place, folder, {**JOB, "optimization.epochs": 1})
    ytrain(place, "run", "tiny.yaml").expect(0)
    (line,) = course(place / "runs/tiny")
    assert line["rl"]["failedRewards"] == 0 and line["rl"]["logProbGap"] < 1e-4


def test_prompts_without_answers_are_trained_as_those_with(ytrain: Commands, place: Path, model_folder: Path) -> None:
    """The answer is not learned: which prompts have one changes nothing of the run."""
    chats = [json.loads(line) for line in (place / "chats.jsonl").read_text().splitlines()]
    for chat in chats:
        chat["messages"] = chat["messages"][:-1]
    (place / "prompts.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    for name in ("chats", "prompts"):
        source = [{"source": f"file://./{name}.jsonl"}]
        write_job(place, model_folder, JOB | {"data.train": source, "optimization.maxSteps": 2}, name=name)
    ytrain(place, "check", "prompts.yaml").expect(0, "16 prompts", "no answer of its own, an empty one gets reward 0")
    ytrain(place, "run", "prompts.yaml").expect(0, "done, 2 steps")
    ytrain(place, "run", "chats.yaml").expect(0)
    for one, two in zip(course(place / "runs/prompts"), course(place / "runs/chats"), strict=True):
        assert one["rl"]["sampledTokens"] == two["rl"]["sampledTokens"]
        for name in ("loss", "gradientNorm", "supervisedTokens"):
            assert one[name] == pytest.approx(two[name], rel=1e-4), name
    for name, measured in (("prompts", False), ("chats", True)):
        evaluation = json.loads((place / f"runs/{name}/evaluation.json").read_text())
        assert (evaluation["after"]["klToStart"] is not None) == measured, "it is measured on answers"


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"rl": {"reward": RL["reward"], "rollout": {"chains": 1}}}, 2, ["spec.rl.rollout.chains: 1", "add rl.tree"]),
        ({"model.lora": {"dropout": 0.1}}, 2, ["spec.model.lora.dropout", "off-policy", "leave it at 0"]),
        ({"data.packing": False}, 2, ["spec.data.packing", "leave it out"]),
        (
            {"data.train": [{"source": "file://./chats.jsonl", "format": "text"}]},
            3,
            ["spec.data.train", "chats.jsonl"],
        ),
        ({"rl.rollout.maxNewTokens": 500}, 2, ["spec.rl.rollout.maxNewTokens: 500", "512 positions", "or fewer"]),
        ({"data.maxTokens": 12}, 3, ["spec.data.train", "maxTokens"]),
        ({"rl.reward": {"python": {"source": "file://./reward.py:scor"}}}, 2, ["reward.py", "scor", "score"]),
        (
            {"rl.reward": {"python": {"source": "configmap://none/reward.py:score"}}},
            2,
            ["spec.rl.reward.python.source: configmap://none/reward.py", "no ConfigMap 'none'"],
        ),
    ],
)
def test_job_that_cannot_be_trained(
    ytrain: Commands, place: Path, model_folder: Path, changes: dict[str, Any], code: int, words: list[str]
) -> None:
    write_job(place, model_folder, JOB | {"rl": json.loads(json.dumps(RL))} | changes)
    ytrain(place, "run", "tiny.yaml").expect(code, *words)
    assert not (place / "runs/tiny/output").exists()


def test_model_that_never_ends_an_answer(ytrain: Commands, place: Path, tmp_path: Path) -> None:
    folder = make_model_folder(tmp_path / "endless")
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = None
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    tokenizer.save_pretrained(folder)
    write_job(place, folder, JOB)
    ytrain(place, "run", "tiny.yaml").expect(2, "no end-of-sequence token", "eos_token", "tokenizer_config.json")


@pytest.mark.parametrize("processes", [1, 2])
def test_rewards_that_never_come_end_the_run(ytrain: Commands, place: Path, model_folder: Path, processes: int) -> None:
    (place / "reward.py").write_text("def score(**rest):\n    raise KeyError('gold')\n")
    write_job(place, model_folder, JOB)
    ytrain(place, "check", "tiny.yaml").expect(0, "warning: the reward gives nothing for any of the 3 samples shown")
    ended = ytrain(place, "run", "tiny.yaml", "--processes", f"{processes}")
    ended.expect(4, "no answer got a reward in 3 steps", "KeyError", "reward.py:2")
    assert re.search(r"step 1: (\d+) of \1 answers got no reward; \1 of them: reward.py:score raised", ended.output)


SLOW_ONCE = """
import time
from pathlib import Path

def score(answer, **rest):
    if Path("runs/tiny/metrics.jsonl").read_text() and not Path("slow").exists():
        Path("slow").touch()
        time.sleep(12)
    return len(answer)
"""


def test_a_slow_reward_is_no_hang(ytrain: Commands, place: Path, model_folder: Path) -> None:
    (place / "reward.py").write_text(SLOW_ONCE)
    reward = {"python": {"source": "file://./reward.py:score", "timeout": "60s"}}
    changes = {"rl": RL | {"reward": reward}, "policy": {"hangTimeout": "5s"}, "optimization.maxSteps": 3}
    write_job(place, model_folder, JOB | changes)
    ended = ytrain(place, "run", "tiny.yaml", "--processes", "2").expect(0, "done, 3 steps")
    assert (place / "slow").exists() and "no step for" not in ended.output


def test_rewards_that_tell_nothing_apart_are_told(ytrain: Commands, place: Path, model_folder: Path) -> None:
    (place / "reward.py").write_text("def score(**rest):\n    return 1\n")
    write_job(place, model_folder, {**JOB, "optimization.epochs": 1})
    ytrain(place, "run", "tiny.yaml").expect(0, "steps 1 to 4: the answers to each prompt all got the same reward")
    lines = read_lines(place / "runs/tiny/metrics.jsonl")
    assert [line["loss"] for line in lines] == [None] * 4 and [line["supervisedTokens"] for line in lines] == [0] * 4
