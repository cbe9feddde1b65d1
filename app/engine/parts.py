"""The three parts of a ranking that strategies choose from, and rows that stand for all."""

import numpy as np
from numpy.typing import NDArray

MOST_EQUAL = 1_000  # rows that are read exactly because they can't be told apart

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


def pick_parts(scores: Floats, *, top: int, line: int) -> Integers:
    """Where the `top` highest scores stand, the `line` lowest >= 0 and the `line` highest < 0.

    Parameters: `scores` (n,) without NaN; `top` and `line` >= 0. Returns positions (m,) int64,
    ascending, each once; of equal scores at an edge all, up to 1,000 more than asked for.
    Source: selection by C. A. R. Hoare, "Algorithm 65: Find", CACM 4, 1961, as numpy's partition.
    """
    is_picked = _is_among_smallest(-scores, top)
    above = np.where(scores >= 0, scores, np.inf)
    below = np.where(scores < 0, -scores, np.inf)
    for keys in (above, below):
        is_picked |= _is_among_smallest(keys, line) & np.isfinite(keys)
    return np.flatnonzero(is_picked)


def _is_among_smallest(keys: NDArray[np.floating], k: int) -> NDArray[np.bool_]:
    if k >= len(keys):
        return np.ones(len(keys), bool)
    if k == 0:
        return np.zeros(len(keys), bool)
    kth = np.partition(keys, k - 1)[k - 1]
    is_small: NDArray[np.bool_] = keys <= kth
    if np.count_nonzero(is_small) > k + MOST_EQUAL:  # a hundred thousand pictures of the same
        equal = np.flatnonzero(keys == kth)
        is_small[equal[k + MOST_EQUAL - np.count_nonzero(keys < kth) :]] = False
    return is_small


def evenly(count: int, most: int) -> Integers:
    """At most `most` of `count` rows, evenly spaced.

    Parameters: `count` and `most` >= 1. Returns (k,) int64, ascending, from 0.
    Source: systematic sampling, W. G. Cochran, "Sampling Techniques", 1977, chapter 8.
    """
    wanted = min(count, most)
    return np.arange(wanted) * count // wanted
