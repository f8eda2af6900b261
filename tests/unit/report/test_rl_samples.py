"""Trees of sampled answers, from the file that a step writes to the rows of the page."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.report.conftest import leaf, metrics_line, node, rl_figures, sample_file

from ytrain.report.record import read_run
from ytrain.report.rl_samples import PROMPT_ENDS, SHOWN_ANSWERS, TEXT_ENDS, ShownTree, shown_trees, spread, visible
from ytrain.rl.credit import Group
from ytrain.rl.prompts import Prompt
from ytrain.rl.rewards import Failure
from ytrain.rl.samples import write_samples
from ytrain.rl.tree import Leaf, Node, SampleTree

pytestmark = pytest.mark.unit


@pytest.fixture
def shown(run_folder):
    def of(*files: dict[str, Any], **parts: Any) -> list[ShownTree]:
        record = read_run(run_folder(samples=list(files), **parts))
        assert record.problems == ()
        return shown_trees(record)

    return of


def test_what_answers_share_stands_once_with_the_mean_of_what_follows(shown) -> None:
    (tree,) = shown(sample_file(1))
    rows = [(row.depth, row.mark, row.text.head, row.reward, row.answers, row.leaf is not None) for row in tree.rows]
    assert rows == [
        (0, "", "It is", (1 * 1.0 + 3 * 0.5) / 4, 2, False),
        (1, " noon", ".", 1.0, 1, True),
        (1, " late", ".", 0.5, 1, True),
        (0, "", "Now.", 0.0, 1, True),
    ]
    assert tree.reward == (1.0 + 3 * 0.5) / 5
    assert [row.tint for row in tree.rows] == [62, 100, 50, 0]


def test_the_shape_is_told_with_its_cost(shown) -> None:
    figures = rl_figures(1, forwardedPerLeaf=11.04, forwardedPerLeafAlone=40.5)
    (tree,) = shown(sample_file(1), metrics=[metrics_line(1, rl=figures)])
    assert tree.shape == (
        "3 answers from 2 beginnings and 1 fork: 19 tokens sampled, where answers that share nothing would have 29. "
        "With those that pruning merged into them they are 5. "
        "All prompts of the step: 11.0 tokens forwarded per answer instead of 40.5."
    )


def test_a_single_chain_is_a_tree_too(shown) -> None:
    (tree,) = shown(sample_file(1, nodes=[node(-1, "Now.")], leaves=[leaf(0, None, failure="it raised")]))
    assert tree.shape == "1 answer, 4 tokens sampled. 1 without a reward."
    assert tree.reward is None
    assert [(row.reward, row.tint, row.leaf and row.leaf.failure) for row in tree.rows] == [(None, 0, "it raised")]


def test_a_segment_goes_on_where_pruning_left_one_branch(shown) -> None:
    nodes = [node(-1, "a"), node(0, "b"), node(1, "c"), node(1, "d"), node(3, "e")]
    (tree,) = shown(sample_file(1, nodes=nodes, leaves=[leaf(2, 1.0), leaf(4, 0.0)]))
    assert [(row.depth, row.mark + row.text.head) for row in tree.rows] == [(0, "ab"), (1, "c"), (1, "de")]


def test_long_texts_keep_their_ends_and_say_what_is_missing(shown) -> None:
    text = "a" * 5_000 + "the end"
    (tree,) = shown(sample_file(1, prompt=text, nodes=[node(-1, text)], leaves=[leaf(0, 1.0)]))
    for cut, ends in ((tree.rows[0].text, TEXT_ENDS), (tree.prompt, PROMPT_ENDS)):
        assert cut.tail.endswith("the end")
        assert (len(cut.head), len(cut.tail)) == ends
        assert len(cut.head) + cut.omitted + len(cut.tail) == len(text)


@pytest.mark.parametrize("over", [0, 1, 300])
def test_answers_beyond_the_limit_are_counted(shown, over: int) -> None:
    count = SHOWN_ANSWERS + over
    nodes = [node(-1, "so"), *(node(0, f" {number}") for number in range(count))]
    (tree,) = shown(sample_file(1, nodes=nodes, leaves=[leaf(number + 1, 1.0) for number in range(count)]))
    assert sum(row.leaf is not None for row in tree.rows) == SHOWN_ANSWERS
    assert tree.hidden == over
    assert tree.rows[0].answers == count


@pytest.mark.parametrize(
    ("count", "indices"),
    [(0, []), (1, [0]), (4, [0, 1, 2, 3]), (5, [0, 1, 2, 4]), (20, [0, 6, 12, 19])],
)
def test_the_first_the_last_and_some_between(count: int, indices: list[int]) -> None:
    assert spread(count, 4) == indices


def test_text_is_put_on_one_line_with_its_control_characters() -> None:
    assert visible("a\nb\r\n\tc\x00d é 日") == "a↵ b↵ ␉c␀d é 日"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"nodes": [node(0, "a")], "leaves": [leaf(0, 1.0)]}, "parent does not come before"),
        ({"nodes": [node(-1, "a"), node(5, "b")], "leaves": []}, "parent does not come before"),
        ({"leaves": [leaf(1, 1.0), leaf(2, 1.0)]}, "nodes without children"),
        ({"leaves": [leaf(0, 1.0), leaf(1, 1.0), leaf(2, 1.0), leaf(3, 1.0)]}, "nodes without children"),
        ({"leaves": [leaf(1, 1.0), leaf(2, 1.0), leaf(3, 1.0), leaf(9, 1.0)]}, "nodes without children"),
        ({"leaves": [leaf(1, 1.0), leaf(1, 1.0), leaf(2, 1.0), leaf(3, 1.0)]}, "nodes without children"),
        ({"leaves": [leaf(1, 1.0, mass=0.0), leaf(2, 1.0), leaf(3, 1.0)]}, "leaves.0.mass"),
        ({"prompt": None}, "prompt"),
    ],
)
def test_a_file_that_holds_no_tree_is_named_and_left_out(run_folder, changes: dict[str, Any], problem: str) -> None:
    record = read_run(run_folder(samples=[sample_file(1), sample_file(2, **changes)]))
    assert [one.step for one in record.samples] == [1]
    assert len(record.problems) == 1
    assert record.problems[0].startswith("step-000002.json: ") and problem in record.problems[0]


def test_half_a_file_is_named_and_left_out(run_folder) -> None:
    folder = run_folder(samples=[sample_file(1), sample_file(2)])
    (folder / "samples" / "step-000002.json").write_text('{"step": 2, "no')
    (folder / "samples" / "step-000003.partial").write_text("")
    record = read_run(folder)
    assert [one.step for one in record.samples] == [1]
    assert len(record.problems) == 1 and record.problems[0].startswith("step-000002.json: ")


def test_what_a_run_writes_is_what_the_report_reads(tmp_path: Path, tokenizer) -> None:
    def segment(parent: int, text: str, entropy: float) -> Node:
        ids = np.array(tokenizer(text, add_special_tokens=False)["input_ids"], np.int32)
        figures = np.full(len(ids), entropy, np.float32)
        return Node(parent=parent, tokens=ids, log_p=-figures, entropy=figures)

    tree = SampleTree(
        prompt_ids=np.zeros(3, np.int32),
        nodes=(segment(-1, "It is", 0.5), segment(0, " noon", 2.0), segment(0, " late", 2.0)),
        leaves={1: Leaf(mass=1.0, ended=True), 2: Leaf(mass=2.0, ended=False)},
    )
    prompt = Prompt(ids=np.zeros(3, np.int32), text="When?", record={}, place="train.jsonl:3")
    group = Group(tree, {1: 0.5, 2: Failure("it took longer than 10 s")})
    write_samples(tmp_path / "samples", 7, prompt, group, tokenizer)
    (shown,) = shown_trees(read_run(tmp_path))
    assert (shown.step, shown.place, shown.prompt.head) == (7, "train.jsonl:3", "When?")
    assert [row.mark + row.text.head for row in shown.rows] == ["It is", " noon", " late"]
    assert [row.entropy for row in shown.rows] == [0.5, 2.0, 2.0]
    ends = [row.leaf for row in shown.rows if row.leaf]
    assert [(end.mass, end.ended, end.reward) for end in ends] == [(1.0, True, 0.5), (2.0, False, None)]
    assert ends[1].failure == "it took longer than 10 s"
