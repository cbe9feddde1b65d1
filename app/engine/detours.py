"""Rounds that a person asks for beside the strategy's: a gap, a sample, another look.

A plan says all images that a detour shows, in their order; it is the same whenever it is made again
from the same index, answers, head and random numbers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.engine.answers import Answers
from app.engine.events import show_one_each, teach_one_each
from app.engine.head import Head
from app.engine.index import VectorIndex
from app.engine.remaining import SamplePlan, plan_absence, plan_estimate
from app.engine.stopping import plan_look
from app.engine.strategies.fitting import fit_with_pseudo_negatives
from app.engine.strategies.round_state import (
    GAP,
    OTHER_EMBEDDER,
    SAMPLE,
    SECOND_LOOK,
    Lesson,
    smallest,
)

Integers = NDArray[np.int64]

DETOUR_REASONS = {
    "gap": GAP,
    "estimate": SAMPLE,
    "absence": SAMPLE,
    "second-look": SECOND_LOOK,
    "other-embedder": OTHER_EMBEDDER,
}
PSEUDO_NEGATIVES = 100  # of a head on another embedder's vectors
DETOUR_STREAM = 2  # keeps its random numbers apart from those of rounds and of oracles


@dataclass(frozen=True, eq=False)
class DetourPlan:
    """`rows` (k,) int64 in the order to show.

    `sample`: how they were drawn, None unless it is a sample. `seen_again`: positives that a second
    look came upon; the first `beside_count` of its images stand beside single positives.
    """

    rows: Integers
    sample: SamplePlan | None = None
    seen_again: int = 0
    beside_count: int = 0


def plan_detour(
    kind: str,
    index: VectorIndex,
    answers: Answers,
    *,
    head: Head | None,
    size: int,
    rng: np.random.Generator,
    anchor_row: int | None,
    other: VectorIndex | None = None,
    events: Integers | None = None,
) -> DetourPlan:
    """Which images a detour shows.

    Parameters: `kind`, gap (the unanswered images nearest to `anchor_row`), estimate (a sample by
    the score of `head`), absence (a sample at random), second-look, or other-embedder (what a head
    on the vectors of the index `other` holds likely and `head` unlikely); `answers` so far; `size`
    >= 1 images, fewer where fewer are left; `rng` draws, best from `detour_rng`; `events` (n,) as
    in app/engine/events.py: then a detour is about events, and one unanswered image stands for
    each, in a gap the nearest, else the one of the highest score. Raises ValueError for another
    kind, a gap without anchor, an estimate without head, another embedder without both.
    Source: docs/algorithms.md, "How many are left".
    """
    is_open = np.ones(index.count, bool)
    is_open[answers.rows] = False
    unanswered = np.flatnonzero(is_open)
    if events is not None:
        answers = teach_one_each(answers, events)
        keys = _rank(kind, index, head, anchor_row)[unanswered]
        unanswered = show_one_each(unanswered, keys, events)
    if kind == "gap" and anchor_row is not None:
        vector = index.vectors[anchor_row : anchor_row + 1]
        _, rows = index.nearest(vector, min(size, len(unanswered)), rows=unanswered)
        return DetourPlan(rows[0])
    if kind == "estimate" and head is not None:
        scores = index.scores(head.weights, head.bias)[unanswered]
        sample = plan_estimate(scores, unanswered, size, rng=rng)
        return DetourPlan(sample.rows, sample)
    if kind == "absence":
        sample = plan_absence(unanswered, size, rng=rng)
        return DetourPlan(sample.rows, sample)
    if kind == "second-look":
        look = plan_look(index, answers, unanswered, size, rng=rng)
        return DetourPlan(look.rows, None, look.seen_again, look.beside_count)
    if kind == "other-embedder" and head is not None and other is not None:
        rows = _list_likely_elsewhere(index, other, answers, unanswered, head, size, rng)
        return DetourPlan(rows)
    raise ValueError(f"no detour {kind!r} can be planned from what there is")


def detour_rng(seed: int, round_number: int) -> np.random.Generator:
    """The random numbers of a detour: asked for again at the same place it shows the same images.

    Parameters: `seed` >= 0 of the search; `round_number` >= 1 of its first round.
    Source: numpy's SeedSequence, as in `round_rng`.
    """
    return np.random.default_rng([seed, round_number, DETOUR_STREAM])


def _rank(
    kind: str, index: VectorIndex, head: Head | None, anchor_row: int | None
) -> NDArray[np.float32]:
    """By what one image of an event is taken before the others, (n,): the larger the sooner."""
    if kind == "gap" and anchor_row is not None:
        return index.similarities(index.vectors[anchor_row])
    if head is not None:
        return index.scores(head.weights, head.bias)
    return np.zeros(index.count, np.float32)


def _list_likely_elsewhere(
    index: VectorIndex,
    other: VectorIndex,
    answers: Answers,
    unanswered: Integers,
    head: Head,
    size: int,
    rng: np.random.Generator,
) -> Integers:
    """Rows below the boundary of `head`, in order of a head of the same answers elsewhere."""
    held, rows = _find_in(other, index, answers.rows)
    told = Answers(rows, answers.values[held])
    if not len(told.positives):
        return np.empty(0, np.int64)
    is_open = np.ones(other.count, bool)
    is_open[told.rows] = False
    vectors = other.vectors
    lesson = Lesson(
        other, vectors[told.positives], vectors[told.negatives], np.flatnonzero(is_open), rng
    )
    other_head = fit_with_pseudo_negatives(lesson, PSEUDO_NEGATIVES)
    unlikely = unanswered[index.scores(head.weights, head.bias)[unanswered] <= 0]
    held, rows = _find_in(other, index, unlikely)
    scores = other.scores(other_head.weights, other_head.bias)[rows]
    return unlikely[held][smallest(-scores, size)]


def _find_in(
    other: VectorIndex, index: VectorIndex, rows: Integers
) -> tuple[NDArray[np.bool_], Integers]:
    """Which rows of an index another one holds too, and the rows they are there."""
    image_ids = index.image_ids[rows]
    held = other.holds(image_ids)
    return held, other.rows_of(image_ids[held])
