"""What a strategy is given, to fit a head and to choose, and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from app.engine.answers import Answers, Opening
from app.engine.head import Head
from app.engine.index import VectorIndex

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

OPENING = "opening"  # nearest to the opening
CLOSE_TO_LINE = "close-to-line"
LIKELY = "likely"
EXPLORATION = "exploration"
GAP = "gap"  # the looks that a person asked for
SAMPLE = "sample"  # drawn by lot, to tell how many are left
SECOND_LOOK = "second-look"
OTHER_EMBEDDER = "other-embedder"  # likely by its vectors, unlikely by those of the search
REASONS = (
    OPENING,
    CLOSE_TO_LINE,
    LIKELY,
    EXPLORATION,
    GAP,
    SAMPLE,
    SECOND_LOOK,
    OTHER_EMBEDDER,
)


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a head is fitted on.

    `positives` (p, d), p >= 1, and `negatives` (m, d), float32 unit rows: vectors of answers and
    uploaded examples. `unanswered` (u,) int64, ascending rows that pseudo-negatives may be drawn
    from with `rng`; m + u >= 1.
    """

    index: VectorIndex
    positives: Floats
    negatives: Floats
    unanswered: Integers
    rng: np.random.Generator

    @cached_property
    def has_roots(self) -> bool:
        """Whether no answered image has a number below 0, as behind a ReLU: then roots help."""
        return bool(min(self.positives.min(), self.negatives.min(initial=0)) >= 0)


@dataclass(frozen=True, eq=False)
class RoundState:
    """Everything that may decide which images come next.

    `unanswered` (u,) int64: the rows that may be shown, ascending, or where the index does not rank
    all the shortlist of them; never empty. `head` was fitted on `lesson`, which has the same
    `index` and `rng`; `scores` (u,) float32 are its scores of these. `size`: images wanted, at
    most u.
    """

    index: VectorIndex
    answers: Answers
    opening: Opening
    lesson: Lesson
    unanswered: Integers
    head: Head
    scores: Floats
    size: int
    rng: np.random.Generator


@dataclass(frozen=True, eq=False)
class Choice:
    """`rows` (size,) int64 in display order and, for each, why it is shown (one of REASONS)."""

    rows: Integers
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, rows: Integers, reason: str) -> "Choice":
        """Rows that are all shown for the same reason."""
        return cls(rows, (reason,) * len(rows))


# What a strategy is: it chooses `size` different rows of `unanswered`, without changing its input.
Chooser = Callable[[RoundState], Choice]


def smallest(keys: NDArray[np.floating], k: int) -> Integers:
    """Positions of the `k` smallest keys, smallest first, ties by position.

    Parameters: `keys` (n,) without NaN; `k` >= 0. Returns (min(k, n),) int64.
    Source: selection by C. A. R. Hoare, "Algorithm 65: Find", CACM 4, 1961, as numpy's partition.
    One partition instead of a full sort: at a million keys this is a tenth of the time.
    """
    k = min(k, len(keys))
    if k == 0:
        return np.empty(0, dtype=np.int64)
    kth = np.partition(keys, k - 1)[k - 1]
    candidates = np.flatnonzero(keys <= kth)
    return candidates[np.argsort(keys[candidates], kind="stable")[:k]]
