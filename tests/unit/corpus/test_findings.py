"""What is repeated, alike, odd and left out, on texts and points small enough to say what must come out."""

from typing import Any

import numpy as np
import pytest

from ytrain.corpus.anomalies import oddities, shape
from ytrain.corpus.clusters import cluster
from ytrain.corpus.duplicates import jaccard, near_duplicates
from ytrain.corpus.judgement import LEFT_OUT_DUPLICATE, LEFT_OUT_LABEL, LEFT_OUT_UNSCORED, left_out

pytestmark = pytest.mark.unit

STORY = "the quick brown fox jumps over the lazy dog while 12 cats look on from the wall and sing about rain and snow"


@pytest.mark.parametrize(
    ("other", "repeats"),
    [
        (STORY, True),
        (STORY.upper(), True),
        (STORY.replace(" ", "\n  "), True),
        (STORY + " today", True),
        (STORY + " but not on a day like this one", False),
        (STORY.replace("12", "13"), False),  # another number is another task, however alike the words
        (STORY.replace("12", "-12"), False),
        ("nothing of the kind", False),
        ("", False),
    ],
)
def test_a_text_repeats_an_earlier_one(other: str, repeats: bool) -> None:
    assert near_duplicates(["something else", STORY, other], 0.9) == [0, 1, 1 if repeats else 2]


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    text = "敏捷的棕色狐狸跳过了那只懒惰的狗。墙上的猫看着它们唱起了关于雨和雪的歌。"
    assert near_duplicates([text, text.replace("狐狸", "狐")], 0.8) == [0, 0]
    assert near_duplicates([text, "今天的天气很好。我们一起去公园散步吧。然后回家吃饭。"], 0.8) == [0, 1]
    assert near_duplicates(["gpt模型训练数据清洗方法", "gpt模型训练数据清洗方案"], 0.7) == [0, 0]


def test_similarity_is_the_share_of_common_word_groups() -> None:
    one, other = "a b c d e f", "a b c d e g"  # abc bcd cde in common, def and deg not: 3 of 5
    assert near_duplicates([one, other], 0.6) == [0, 0]
    assert near_duplicates([one, other], 0.61) == [0, 1]


def test_every_repetition_names_the_first() -> None:
    assert near_duplicates([STORY, "x", STORY + " now", STORY, "x"], 0.9) == [0, 1, 0, 0, 1]


def test_tasks_made_from_one_template_are_not_compared_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def counted(a: Any, b: Any) -> float:
        compared.append(1)
        return jaccard(a, b)

    monkeypatch.setattr("ytrain.corpus.duplicates.jaccard", counted)
    texts = [f"{STORY}, {i} times" for i in range(300)]
    assert near_duplicates([*texts, texts[7] + " now"], 0.9) == [*range(300), 7]
    assert 1 <= len(compared) < 10  # all pairs are 45,150


def test_what_is_left_out_keeps_one_of_each_group_and_no_wrong_label() -> None:
    scored, wrong = [True] * 5, [False, True, False, False, False]
    first = [0, 1, 1, 0, 1]  # 1 is wrong, so of its group 2 is the one that stays
    assert left_out(scored, wrong, first) == {1: LEFT_OUT_LABEL, 3: LEFT_OUT_DUPLICATE, 4: LEFT_OUT_DUPLICATE}
    assert left_out(scored, wrong, None) == {1: LEFT_OUT_LABEL}


def test_a_record_without_a_score_is_left_out_and_what_repeats_it_stays() -> None:
    assert left_out([False, True, True], [False] * 3, [0, 0, 0]) == {0: LEFT_OUT_UNSCORED, 2: LEFT_OUT_DUPLICATE}


def test_two_clouds_are_two_clusters_with_representatives_from_their_middle() -> None:
    random = np.random.default_rng(0)
    centres = np.repeat([[0.0, 0, 0, 0], [9.0, 9, 0, 0]], 30, axis=0)
    found = cluster(centres + random.normal(0, 0.5, (60, 4)), min_size=10, dimensions=3)
    assert len(set(found.label_N[:30].tolist()) - {-1}) == len(set(found.label_N[30:].tolist()) - {-1}) == 1
    assert set(found.label_N[:30].tolist()) - {-1} != set(found.label_N[30:].tolist()) - {-1}
    for name, members in found.representatives.items():
        assert len(members) == 3 and all(found.label_N[member] == name for member in members)
    assert found.map_N2.shape == (60, 2)


def test_records_that_are_not_finite_belong_to_no_cluster_and_change_no_other() -> None:
    points = np.random.default_rng(0).normal(size=(60, 4)) + np.repeat([[0.0] * 4, [9.0] * 4], 30, axis=0)
    broken = np.insert(points, [0, 30], [[1.0, np.nan, 1.0, 1.0], [np.inf] * 4], axis=0)
    whole, found = (cluster(hidden, min_size=10, dimensions=3) for hidden in (points, broken))
    assert found.label_N[[0, 31]].tolist() == [-1, -1]
    assert np.delete(found.label_N, [0, 31]).tolist() == whole.label_N.tolist()
    assert np.delete(found.map_N2, [0, 31], axis=0).tolist() == whole.map_N2.tolist()
    renumbered = np.delete(np.arange(62), [0, 31])
    expected = {name: renumbered[members].tolist() for name, members in whole.representatives.items()}
    assert found.representatives == expected and len(expected) == 2


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_handful_of_records_is_no_cluster(count: int) -> None:
    found = cluster(np.random.default_rng(0).normal(size=(count, 4)), min_size=5, dimensions=30)
    assert found.label_N.tolist() == [-1] * count and found.representatives == {}


def test_records_unlike_the_rest_say_in_what() -> None:
    usual = [{"prompt": "how many?", "response": f"it is {i}"} for i in range(20)]
    odd = [
        {"prompt": "сколько?", "response": "это много"},
        {"question": "how many?", "answer": "it is 3"},
        {"prompt": "how many?", "response": "it is 4<|im_end|>"},
        {"prompt": "how many?", "response": "it is 5"},
    ]
    shapes = [shape(record, "\n".join(record.values())) for record in usual + odd]
    found = oddities(shapes, np.array([*[9, 10, 11, 10] * 5, 10, 10, 10, 4000]))
    assert {index: len(reasons) for index, reasons in found.items()} == {20: 1, 21: 1, 22: 1, 23: 1}
    assert "Cyrillic" in found[20][0] and "Latin" in found[20][0]
    assert "answer, question" in found[21][0] and "prompt, response" in found[21][0]
    assert "<|im_end|>" in found[22][0]
    assert "4,000 tokens" in found[23][0] and "10" in found[23][0]
