"""Rounds that a person asks for beside the strategy's: a gap, a sample, a second look.

A plan says all images that a detour shows, in their order; it is the same whenever it is made again
from the same index, answers, head and random numbers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.engine.answers import Answers
from app.engine.head import Head
from app.engine.index import VectorIndex
from app.engine.remaining import SamplePlan, plan_absence, plan_estimate
from app.engine.stopping import plan_look
from app.engine.strategies.round_state import GAP, SAMPLE, SECOND_LOOK

Integers = NDArray[np.int64]

DETOUR_STREAM = 2  # keeps its random numbers apart from those of rounds and of oracles


@dataclass(frozen=True, eq=False)
class DetourPlan:
    """`rows` (k,) int64 in the order to show, and why (one of REASONS).

    `sample`: how they were drawn, None unless it is a sample. `seen_again`: positives that a second
    look came upon.
    """

    rows: Integers
    reason: str
    sample: SamplePlan | None = None
    seen_again: int = 0


def plan_detour(
    kind: str,
    index: VectorIndex,
    answers: Answers,
    *,
    head: Head | None,
    size: int,
    rng: np.random.Generator,
    anchor_row: int | None,
) -> DetourPlan:
    """Which images a detour shows.

    Parameters: `kind`, gap (the unanswered images nearest to `anchor_row`), estimate (a sample by
    the score of `head`), absence (a sample at random) or second-look; `answers` so far; `size` >= 1
    images, fewer where fewer are left; `rng` draws, best from `detour_rng`. Raises ValueError for
    another kind, a gap without anchor, an estimate without head.
    Source: docs/algorithms.md, "How many are left".
    """
    is_open = np.ones(index.count, bool)
    is_open[answers.rows] = False
    unanswered = np.flatnonzero(is_open)
    if kind == "gap" and anchor_row is not None:
        vector = index.vectors[anchor_row : anchor_row + 1]
        _, rows = index.nearest(vector, min(size, len(unanswered)), rows=unanswered)
        return DetourPlan(rows[0], GAP)
    if kind == "estimate" and head is not None:
        scores = index.scores(head.weights, head.bias)[unanswered]
        sample = plan_estimate(scores, unanswered, size, rng=rng)
        return DetourPlan(sample.rows, SAMPLE, sample)
    if kind == "absence":
        sample = plan_absence(unanswered, size, rng=rng)
        return DetourPlan(sample.rows, SAMPLE, sample)
    if kind == "second-look":
        look = plan_look(index, answers, unanswered, size, rng=rng)
        return DetourPlan(look.rows, SECOND_LOOK, seen_again=look.seen_again)
    raise ValueError(f"no detour {kind!r} can be planned from what there is")


def detour_rng(seed: int, round_number: int) -> np.random.Generator:
    """The random numbers of a detour: asked for again at the same place it shows the same images.

    Parameters: `seed` >= 0 of the search; `round_number` >= 1 of its first round.
    Source: numpy's SeedSequence, as in `round_rng`.
    """
    return np.random.default_rng([seed, round_number, DETOUR_STREAM])
