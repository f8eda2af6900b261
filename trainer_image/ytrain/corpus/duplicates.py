"""Finds records that repeat an earlier one nearly word by word, in time that grows linearly with the corpus.

MinHash and locality-sensitive hashing (datasketch) propose pairs; the exact share of common word groups decides.
"""

import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import xxhash
from datasketch import MinHash, MinHashLSH

PERMUTATIONS = 64
GROUP_WORDS = 3
"""Words of a word group."""
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese: with no spaces between words, a character stands for one."""
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")


def near_duplicates(texts: Iterable[str], similarity: float) -> list[int]:
    """For each text the index of the first one that it repeats; its own where it repeats none.

    Texts that hold different numbers are different, however alike they are: tasks made from a template are no
    duplicates of each other.

    Args:
        similarity: share (Jaccard) of the word groups of both that they have in common.
    """
    # A little below the threshold: a pair that is proposed in vain costs one comparison, one not proposed is lost.
    index = MinHashLSH(threshold=max(0.05, similarity - 0.1), num_perm=PERMUTATIONS)
    groups: dict[int, npt.NDArray[np.uint64]] = {}
    exact: dict[int, int] = {}
    first: list[int] = []
    for number, text in enumerate(texts):
        words = _WORD.findall(text.lower())
        digest = _digest("\0".join(words))
        if digest in exact:
            first.append(exact[digest])
            continue
        mine = word_groups(words)
        minhash = MinHash(num_perm=PERMUTATIONS, seed=1)
        minhash.update_batch([value.tobytes() for value in mine])
        # Other numbers give other hash values, so that tasks made from one template are not even proposed as pairs:
        # comparing all of them would take time that grows with the square of the corpus.
        numbers = _digest(" ".join(re.findall(r"-?\d+", text))) & 0xFFFFFFFF
        minhash.hashvalues = minhash.hashvalues ^ minhash.hashvalues.dtype.type(numbers)
        found = sorted(index.query(minhash))
        same = next((other for other in found if jaccard(mine, groups[other]) >= similarity), number)
        if same == number:
            index.insert(number, minhash)
            groups[number] = mine
        exact[digest] = same
        first.append(same)
    return first


def word_groups(words: list[str]) -> npt.NDArray[np.uint64]:
    """Digests of the distinct groups of consecutive words; of a shorter text, one of all its words."""
    count = max(1, len(words) - GROUP_WORDS + 1)
    digests = {_digest("\0".join(words[i : i + GROUP_WORDS])) for i in range(count)}
    return np.array(sorted(digests), dtype=np.uint64)


def jaccard(a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]) -> float:
    """Common elements of two sets as a share of all of theirs."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


def _digest(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass"))
