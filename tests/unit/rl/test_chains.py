"""Which tokens are forked, and what tree chains make."""

import numpy as np

from ytrain.rl.chains import Chain, as_tree, fork_points

PROMPT = np.array([7, 8], dtype=np.int32)


def chain(tokens: str, entropies: list[float] | None = None, **settings: object) -> Chain:
    """A chain of one token a letter."""
    ids = [ord(letter) for letter in tokens]
    return Chain(
        draws=np.zeros(9),
        tokens=ids,
        log_p=[-0.1 * i for i in ids],
        entropy=entropies or [0.0] * len(ids),
        **settings,  # type: ignore[arg-type]
    )


def test_the_least_certain_tokens_are_forked_but_no_first_one_and_none_twice() -> None:
    first = chain("abcd", [9.0, 1.0, 3.0, 2.0], forked={2})
    second = chain("xyz", [9.0, 2.0, 2.5])
    assert fork_points([first, second], 3) == [(second, 2), (first, 3), (second, 1)]
    assert fork_points([first, second], 9)[3:] == [(first, 1)]
    assert fork_points([chain("a", [9.0])], 2) == []


def test_chains_become_a_tree_cut_at_the_forks() -> None:
    root = chain("abcd", ended=True)
    at_c, again = (chain(text, origin=root, start=2, mass=2.0) for text in ("xy", "z"))
    within = chain("w", origin=at_c, start=3, ended=True)  # abx, then w for y
    other = chain("k")
    tree = as_tree(PROMPT, [root, at_c, again, within, other])
    answers = {"".join(map(chr, tree.answer(leaf))): end for leaf, end in tree.leaves.items()}
    assert {answer: (end.mass, end.ended) for answer, end in answers.items()} == {
        "abcd": (1.0, True), "abxy": (2.0, False), "abz": (2.0, False), "abxw": (1.0, True), "k": (1.0, False),
    }  # fmt: skip
    texts = ["".join(map(chr, node.tokens)) for node in tree.nodes]
    assert sorted(texts) == ["ab", "cd", "k", "w", "x", "y", "z"]
    parents = {
        text: texts[node.parent] if node.parent >= 0 else None for text, node in zip(texts, tree.nodes, strict=True)
    }
    assert parents == {"ab": None, "k": None, "cd": "ab", "x": "ab", "z": "ab", "y": "x", "w": "x"}
    assert all(parent < number for number, parent in enumerate(tree.parents))
    assert tree.tokens == 9 and all(len(node.log_p) == len(node.entropy) == len(node.tokens) for node in tree.nodes)
    assert root.answer(2) == [97, 98] and within.answer(within.length) == [ord(letter) for letter in "abxw"]
