"""How a strategy fits its head: which unanswered images stand in as negatives.

Source of pseudo-negatives: R. T. Mullapudi et al., "Learning Rare Category Classifiers on a Tight
Labeling Budget", ICCV 2021: of a rare target, images low in the current ranking are safe negatives.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.engine.head import Head, fit_head
from app.engine.index import VectorIndex

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

WITHOUT_A_NO = 100  # pseudo-negatives while nothing is answered no: a head needs two classes
PER_ANSWER = 100  # f_a of the paper
MOST = 500  # the paper's numbers reach 5,000, for the same heads at ten times the time


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a head is fitted on.

    `positives` (p, d), p >= 1, and `negatives` (m, d): vectors of answers and uploaded examples.
    `unanswered` (u,) ascending rows that pseudo-negatives may be drawn from; m + u >= 1.
    """

    index: VectorIndex
    positives: Floats
    negatives: Floats
    unanswered: Integers
    rng: np.random.Generator


def fit_on_answers(lesson: Lesson) -> Head:
    """On the answers alone; pseudo-negatives only while nothing is answered no."""
    return fit_with_pseudo_negatives(lesson, 0 if len(lesson.negatives) else WITHOUT_A_NO)


def fit_on_tight_budget(lesson: Lesson) -> Head:
    """With f_a (|P| + 0.1 |N|) pseudo-negatives, at most 500, as `adaptive` does."""
    wanted = round(PER_ANSWER * (len(lesson.positives) + 0.1 * len(lesson.negatives)))
    return fit_with_pseudo_negatives(lesson, min(wanted, MOST))


def fit_with_pseudo_negatives(lesson: Lesson, wanted: int) -> Head:
    """Fit with up to `wanted` unanswered images from the bottom half of the current ranking."""
    rows = _draw_pseudo_negatives(lesson, wanted) if wanted else lesson.unanswered[:0]
    return fit_head(
        lesson.positives,
        lesson.negatives,
        pseudo_negatives=lesson.index.vectors[rows],
        centre=lesson.index.mean,
    )


def _draw_pseudo_negatives(lesson: Lesson, wanted: int) -> Integers:
    """Rows from the bottom half of the ranking by a head on the answers alone.

    While nothing is answered no, the ranking is by similarity to the positives' mean. Instead of
    ranking the whole collection, which would cost a second pass, twice as many rows as wanted are
    drawn and the lower-ranked half of them is kept.
    """
    drawn = lesson.rng.choice(
        lesson.unanswered, min(2 * wanted, len(lesson.unanswered)), replace=False
    )
    drawn.sort()  # ties by row number
    if len(lesson.negatives):
        direction = fit_with_pseudo_negatives(lesson, 0).weights
    else:
        direction = lesson.positives.mean(axis=0)
    ranking = np.argsort(lesson.index.vectors[drawn] @ direction, kind="stable")
    return drawn[ranking[: (len(drawn) + 1) // 2]]
