"""AnchorAL: any strategy, inside a small pool around the answers."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from app.engine.strategies.clustering import fill_up, seed_far_apart
from app.engine.strategies.round_state import Choice, Chooser, RoundState

Integers = NDArray[np.int64]

ANCHORS = 10  # of each class
POOL = 1_000


def within_anchors(choose: Chooser) -> Chooser:
    """Make a strategy choose among the unanswered images nearest to varied answered ones.

    Up to 10 anchors of the positives and 10 of the negatives by k-means++; the pool is what is
    nearest to any of them, about 1,000 images in all. New anchors are drawn every round. While
    nothing is answered yes or no the pool is everything. When it holds less than a round, the
    first rows outside fill up.
    Source: P. Lesci, A. Vlachos, "AnchorAL: Computationally Efficient Active Learning for Large and
    Imbalanced Datasets", NAACL 2024.
    """

    def choose_within(state: RoundState) -> Choice:
        anchors = np.concatenate(
            [
                _draw_anchors(state, rows)
                for rows in (state.answers.positives, state.answers.negatives)
                if len(rows)
            ]
            or [state.answers.rows[:0]]
        )
        if len(anchors) == 0:
            return choose(state)
        each = max(state.size, POOL // len(anchors))
        _, nearest = state.index.nearest(state.index.vectors[anchors], each, rows=state.unanswered)
        pool = np.unique(nearest)
        scores = state.scores[np.searchsorted(state.unanswered, pool)]
        choice = choose(
            replace(state, unanswered=pool, scores=scores, size=min(state.size, len(pool)))
        )
        return Choice(
            fill_up(choice.rows, state.unanswered, state.size),
            choice.reasons + choice.reasons[-1:] * (state.size - len(choice.rows)),
        )

    return choose_within


def _draw_anchors(state: RoundState, rows: Integers) -> Integers:
    vectors = state.index.vectors[rows]
    taken = seed_far_apart(
        (vectors**2).sum(axis=1),
        lambda position: vectors @ vectors[position],
        ANCHORS,
        state.rng,
        first=int(state.rng.integers(len(rows))),
    )
    return rows[taken]
