"""Sampling with vLLM: the policy's own probabilities, the weights of the step, trees, and a job from file to output.

Most of it runs only where vLLM is installed; docs/reinforcement-learning.md says how.
"""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Commands, Ended
from disks import fill, needs_mount, read_only, small_disk
from run_folders import read_lines, steps_written, write_job
from tests.conftest import make_model_folder, wait_until_gone, write_chats

from ytrain.models.language_model import LanguageModel
from ytrain.models.load import load_language_model
from ytrain.models.lora import add_adapter
from ytrain.rl.rollout import Request, Rolled
from ytrain.rl.tree import SampleTree
from ytrain.rl.vllm.messages import EngineSettings
from ytrain.rl.vllm.process import VllmProcess
from ytrain.rl.vllm.rollout import vllm_rollout
from ytrain_api.errors import SpecError, TrainingError, TransientError
from ytrain_api.rl import Rollout, Tree

pytestmark = pytest.mark.e2e
installed = find_spec("vllm") is not None
needs_vllm = pytest.mark.skipif(not installed, reason="vLLM is not installed beside ytrain")

GAP = 2e-4
"""Nats between the log-probabilities of vLLM and of our forward pass in float32; 3e-5 was seen."""

ENTROPY_GAP = 0.1
"""Nats by which an estimated entropy may be off: of the small model's 258 tokens 64 are told, and 0.01 was seen."""

TEMPERATURE = 0.7
TREE = Tree(rounds=2, forks=2, branches=2)
RL: dict[str, Any] = {
    "reward": {"python": {"source": "file://./reward.py:score"}},
    "rollout": {"engine": "vllm", "promptsPerStep": 4, "chains": 3, "maxNewTokens": 12},
    "tree": {"rounds": 1, "forks": 2, "branches": 2},
}


@pytest.fixture(scope="module")
def wide_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model whose heads are as wide as vLLM's attention wants them; its head is its embedding."""
    folder = tmp_path_factory.mktemp("vllm-model") / "tiny"
    return make_model_folder(folder, hidden_size=128, num_key_value_heads=2)


def loaded(folder: Path, lora: bool) -> LanguageModel:
    model = load_language_model(folder, compute_dtype=torch.float32, device=torch.device("cpu"), trained=not lora)
    return add_adapter(model, rank=4, alpha=8, dropout=0.0, targets=["all-linear"], seed=0) if lora else model


def stop_ids(model: LanguageModel) -> list[int]:
    return [model.module.config.eos_token_id]


def requests(step: int = 1, prompts: int = 3) -> list[Request]:
    random = np.random.default_rng(5)
    return [Request(random.integers(0, 256, 40 + 7 * i).astype(np.int32), (1, step, i)) for i in range(prompts)]


@pytest.fixture(scope="module", params=[True, False], ids=["lora", "full"])
def sampled(
    request: pytest.FixtureRequest, wide_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A model and vLLM beside it, at a temperature other than 1."""
    model = loaded(wide_folder, request.param)
    folder = tmp_path_factory.mktemp("vllm") / "rank-0"
    rollout = Rollout(engine="vllm", chains=4, max_new_tokens=24, temperature=TEMPERATURE)
    with vllm_rollout(model, wide_folder, rollout, TREE, stop_ids(model), max_tokens=128, folder=folder) as engine:
        yield model, engine, folder
    assert [path.name for path in folder.iterdir()] == ["log"]


def recomputed(model: LanguageModel, tree: SampleTree, leaf: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities and entropies of an answer's tokens, from our own model over the whole of it."""
    answer = torch.from_numpy(tree.answer(leaf).astype(np.int64))
    prompt = torch.from_numpy(tree.prompt_ids.astype(np.int64))
    with model.generating() as module:
        logits_TV = module(torch.cat([prompt, answer])[None]).logits[0, len(prompt) - 1 : -1].float()
    log_p_TV = (logits_TV / TEMPERATURE).log_softmax(-1)
    entropy_T = -(log_p_TV.exp() * log_p_TV).sum(-1)
    return log_p_TV.gather(1, answer[:, None])[:, 0].numpy(), entropy_T.numpy()


def gaps(model: LanguageModel, rolled: Rolled) -> tuple[float, float]:
    """The largest differences of log-probabilities and of entropies over all answers."""
    of_log_p, of_entropy = [0.0], [0.0]
    for tree in rolled.trees:
        for leaf in tree.leaves:
            log_p_T, entropy_T = recomputed(model, tree, leaf)
            path = [tree.nodes[node] for node in tree.path(leaf)]
            of_log_p.append(float(np.abs(np.concatenate([node.log_p for node in path]) - log_p_T).max()))
            of_entropy.append(float(np.abs(np.concatenate([node.entropy for node in path]) - entropy_T).max()))
    return max(of_log_p), max(of_entropy)


def answers(rolled: Rolled) -> list[list[int]]:
    return [tree.answer(leaf).tolist() for tree in rolled.trees for leaf in tree.leaves]


@needs_vllm
def test_every_branch_has_the_policys_own_probabilities(sampled: Any) -> None:
    model, engine, _ = sampled
    rolled = engine.sample(requests())
    log_p_gap, entropy_gap = gaps(model, rolled)
    print(f"largest gap of log-probabilities {log_p_gap:.1e}, of entropies {entropy_gap:.2f} nats")
    assert log_p_gap < GAP and entropy_gap < ENTROPY_GAP
    assert [len(tree.leaves) for tree in rolled.trees] == [4 + 2 * 2 * 2] * 3 and rolled.branches == 3 * 2 * 2 * 2
    alone = sum(len(tree.prompt_ids) + len(tree.answer(leaf)) - 1 for tree in rolled.trees for leaf in tree.leaves)
    assert sum(tree.tokens for tree in rolled.trees) < rolled.forwarded < alone  # some prefixes came from the cache
    for tree in rolled.trees:
        for leaf, end in tree.leaves.items():
            answer = tree.answer(leaf).tolist()
            assert end.ended == (answer[-1] in stop_ids(model)) and (end.ended or len(answer) == 24)


@needs_vllm
def test_a_key_names_the_answers(sampled: Any) -> None:
    _, engine, _ = sampled
    first, again, other = (answers(engine.sample(requests(step))) for step in (1, 1, 2))
    assert first == again != other


@needs_vllm
def test_the_weights_of_the_step_are_used(sampled: Any) -> None:
    model, engine, folder = sampled
    before = engine.sample(requests())
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.trainable().values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert gaps(model, before)[0] > 100 * GAP  # what was sampled with the weights before
    after = engine.sample(requests())
    assert gaps(model, after)[0] < GAP and answers(after) != answers(before)
    assert sorted(path.name for path in folder.iterdir()) == ["log", "tmp"]  # no weights stay


@needs_vllm
def test_the_cut_of_top_p_leaves_the_probabilities(wide_folder: Path, tmp_path: Path) -> None:
    model = loaded(wide_folder, lora=True)
    rollout = Rollout(engine="vllm", chains=4, max_new_tokens=12, top_p=0.5)
    with vllm_rollout(model, wide_folder, rollout, None, [], max_tokens=80, folder=tmp_path) as engine:
        rolled = engine.sample(requests())
    for tree in rolled.trees:
        for leaf in tree.leaves:
            prompt_and_answer = torch.from_numpy(np.concatenate([tree.prompt_ids, tree.answer(leaf)]).astype(np.int64))
            with model.generating() as module:
                logits_TV = module(prompt_and_answer[None]).logits[0, len(tree.prompt_ids) - 1 : -1].float()
            expected_T = logits_TV.log_softmax(-1).gather(
                1, torch.from_numpy(tree.answer(leaf).astype(np.int64))[:, None]
            )
            (node,) = tree.path(leaf)
            np.testing.assert_allclose(tree.nodes[node].log_p, expected_T[:, 0].numpy(), atol=GAP)


@needs_vllm
def test_an_engine_that_dies_is_told_and_leaves_nothing(wide_folder: Path, tmp_path: Path) -> None:
    model, rollout = loaded(wide_folder, lora=True), Rollout(engine="vllm", chains=2, max_new_tokens=4)
    with (
        pytest.raises(TransientError, match=r"was ended by SIGKILL \(out of memory\?\); run the same command"),
        vllm_rollout(model, wide_folder, rollout, None, [], max_tokens=80, folder=tmp_path) as engine,
    ):
        (worker,) = engines(tmp_path)
        os.kill(worker, signal.SIGKILL)
        engine.sample(requests())
    assert not engines(tmp_path) and [path.name for path in tmp_path.iterdir()] == ["log"]


@needs_vllm
def test_a_model_that_vllm_cannot_load_is_the_jobs_fault(wide_folder: Path, tmp_path: Path) -> None:
    model, rollout = loaded(wide_folder, lora=True), Rollout(engine="vllm", max_new_tokens=4)
    with (
        pytest.raises(SpecError, match=r"spec\.rl\.rollout\.engine: vllm failed: .*log shows more\n.*leave the field"),
        vllm_rollout(model, wide_folder, rollout, None, [], max_tokens=10_000, folder=tmp_path),
    ):
        pass
    assert not engines(tmp_path)


def test_a_process_that_is_killed_while_it_starts_may_be_tried_again(tmp_path: Path) -> None:
    settings = EngineSettings(
        model=str(tmp_path),
        dtype="float32",
        vocabulary=258,
        max_tokens=80,
        temperature=1.0,
        top_p=1.0,
        stop_ids=(),
        lora_rank=None,
        gpu_memory_utilization=0.4,
    )
    with ThreadPoolExecutor() as pool:
        starting = pool.submit(VllmProcess, settings, tmp_path)
        while not (found := engines(tmp_path)):
            assert not starting.done()
        os.kill(found[0], signal.SIGKILL)
        with pytest.raises(TransientError, match=r"ended by SIGKILL .*run the same command to go on"):
            starting.result()
    assert not engines(tmp_path)


def test_a_folder_that_cannot_be_written_is_told_before_vllm_starts(wide_folder: Path, tmp_path: Path) -> None:
    model, rollout = loaded(wide_folder, lora=True), Rollout(engine="vllm", max_new_tokens=4)
    (tmp_path / "vllm").touch()
    with (
        pytest.raises(SpecError, match=r"--workdir: .*vllm is a file"),
        vllm_rollout(model, wide_folder, rollout, None, [], max_tokens=80, folder=tmp_path / "vllm/rank-0"),
    ):
        pass


@needs_mount
def test_a_disk_too_small_for_the_weights_is_told_before_vllm_starts(wide_folder: Path, tmp_path: Path) -> None:
    model, rollout = loaded(wide_folder, lora=False), Rollout(engine="vllm", max_new_tokens=4)
    folder = tmp_path / "disk/rank-0"
    with small_disk(tmp_path / "disk", 200):  # the model has more than a megabyte
        with (
            pytest.raises(TrainingError, match=r"the disk is full: .*weights-1 could not be written; free space"),
            vllm_rollout(model, wide_folder, rollout, None, [], max_tokens=80, folder=folder),
        ):
            pass
        assert list(folder.iterdir()) == []


@needs_vllm
@needs_mount
def test_a_disk_that_takes_no_more_weights_is_told_and_the_engine_goes_on(wide_folder: Path, tmp_path: Path) -> None:
    model, rollout = loaded(wide_folder, lora=True), Rollout(engine="vllm", chains=2, max_new_tokens=4)
    folder = tmp_path / "disk/rank-0"
    with (
        small_disk(tmp_path / "disk", 8000),
        vllm_rollout(model, wide_folder, rollout, None, [], max_tokens=80, folder=folder) as engine,
    ):
        with read_only(folder), pytest.raises(TrainingError, match="weights-1 cannot be made any more: Read-only"):
            engine.sample(requests())
        fill(tmp_path / "disk/filler")
        with pytest.raises(TrainingError, match=r"the disk is full: .*weights-2 could not be written; free space"):
            engine.sample(requests())
        (tmp_path / "disk/filler").unlink()
        assert engine.sample(requests()).trees
        assert sorted(path.name for path in folder.iterdir()) == ["log", "tmp"]


def engines(folder: Path) -> list[int]:
    """Processes of vLLM engines whose temporary files lie in a folder."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it ended, or is another user's
            if f"TMPDIR={folder}/".encode() in environment.read_bytes():
                found.append(int(environment.parent.name))
    return found


def write_rl_job(place: Path, model: Path, **more: Any) -> None:
    """A job of 8 steps."""
    optimization = {"learningRate": 2e-2, "epochs": 2}
    changes = {"sft": ..., "rl": RL, "model.lora": {"rank": 4}, "optimization": optimization}
    write_job(place, model, changes | {"checkpoint": {"everySteps": 1}, **more})


@pytest.fixture
def job_place(tmp_path: Path, wide_folder: Path) -> Path:
    """A folder with 16 prompts, a reward and a job."""
    write_chats(tmp_path / "chats.jsonl", 16)
    (tmp_path / "reward.py").write_text(
        "def score(prompt, answer, record):\n    return sum(c.isascii() for c in answer) / 6\n"
    )
    write_rl_job(tmp_path, wide_folder)
    return tmp_path


PARTITIONED = {"zeroStage": 3, "config": {"zero_optimization": {"stage3_param_persistence_threshold": 0}}}


@needs_vllm
@pytest.mark.parametrize(
    ("lora", "deepspeed"), [({"rank": 4}, None), (None, PARTITIONED)], ids=["lora", "full, sharded"]
)
def test_two_ranks_sample_and_train_to_an_output(
    ytrain: Commands, job_place: Path, wide_folder: Path, lora: dict[str, Any] | None, deepspeed: dict[str, Any] | None
) -> None:
    write_rl_job(job_place, wide_folder, **{"model.lora": lora, "deepspeed": deepspeed})
    ytrain(job_place, "check", "tiny.yaml").expect(0, "up to 28 answers")
    run = job_place / "runs/tiny"
    command = ytrain.start(job_place, "run", "tiny.yaml", "--processes", "2")
    command.until(lambda: steps_written(run)).wait().expect(0, "done, 8 steps")
    lines = read_lines(run / "metrics.jsonl")
    assert len(lines) == 8 and all(line["rl"]["leaves"] == 28 for line in lines)
    gaps = [line["rl"]["largestLogProbGap"] for line in lines]  # None where all answers got the same reward
    assert gaps[0] is not None and max(gap for gap in gaps if gap is not None) < GAP
    assert sorted(str(path.relative_to(run)) for path in (run / "vllm").rglob("*") if path.is_file()) == [
        "vllm/rank-0/log",
        "vllm/rank-1/log",
    ]
    assert not engines(run / "vllm/rank-0") and not engines(run / "vllm/rank-1")


@needs_vllm
def test_a_killed_run_leaves_no_engine_and_goes_on(ytrain: Commands, job_place: Path) -> None:
    run = job_place / "runs/tiny"
    command = ytrain.start(job_place, "run", "tiny.yaml")
    command.until(lambda: any((run / "checkpoints").glob("step-*")))
    (engine,) = engines(run / "vllm/rank-0")
    command.send(signal.SIGKILL).wait()
    wait_until_gone([engine])
    assert not engines(run / "vllm/rank-0")
    again = ytrain.start(job_place, "run", "tiny.yaml")
    again.until(lambda: "going on from" in again.output).wait().expect(0, "done, 8 steps")
    assert [line["step"] for line in read_lines(run / "metrics.jsonl")] == list(range(1, 9))


@needs_vllm
def test_a_run_whose_engine_is_killed_says_so_and_goes_on(ytrain: Commands, job_place: Path) -> None:
    run = job_place / "runs/tiny"
    command = ytrain.start(job_place, "run", "tiny.yaml")
    command.until(lambda: any((run / "checkpoints").glob("step-*")))
    (engine,) = engines(run / "vllm/rank-0")
    os.kill(engine, signal.SIGKILL)
    command.wait().expect(5, "vllm's process was ended by SIGKILL", "run the same command to go on")
    assert [path.name for path in (run / "vllm/rank-0").iterdir()] == ["log"]
    ytrain(job_place, "run", "tiny.yaml").expect(0, "going on from", "done, 8 steps")


@pytest.mark.skipif(installed, reason="vLLM is installed beside ytrain")
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_job_that_wants_a_missing_vllm_is_refused(
    ytrain_here: Callable[..., Ended], job_place: Path, command: str
) -> None:
    code = {"check": 1, "run": 2}[command]
    ytrain_here(job_place, command, "tiny.yaml").expect(
        code, "spec.rl.rollout.engine: vllm", "is not installed in", "leave the field out"
    )
