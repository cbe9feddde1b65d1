"""Measures of a replay, each with its source. Coverage stands in `coverage.py`."""

import numpy as np
from numpy.typing import NDArray

Booleans = NDArray[np.bool_]


def recall(found: int, target_count: int) -> float:
    """Share of a target's images that were found.

    Parameters: 0 <= `found` <= `target_count`, `target_count` >= 1. Returns 0..1.
    Source: C. J. van Rijsbergen, "Information Retrieval", 1979, chapter 7.
    """
    return found / target_count


def round_precision(yes_count: int, shown_count: int) -> float:
    """Share of yes in one round, 0 for an empty one.

    Parameters: 0 <= `yes_count` <= `shown_count`, images. Returns 0..1.
    Source: C. J. van Rijsbergen, "Information Retrieval", 1979, chapter 7.
    """
    return yes_count / shown_count if shown_count else 0.0


def positives_per_100_answers(positive_count: int, answer_count: int) -> float:
    """Yield of the person's work so far, 0 before the first answer.

    Parameters: 0 <= `positive_count` <= `answer_count`, images. Returns 0..100.
    Source: precision of all that was shown (van Rijsbergen 1979, chapter 7), in per cent.
    """
    return 100 * positive_count / answer_count if answer_count else 0.0


def f1(is_target: Booleans, scores: NDArray[np.floating]) -> float:
    """Harmonic mean of precision and recall of "score above 0"; 0 when neither has a yes.

    Parameters: `is_target` (n,) bool, `scores` (n,) of a head. Returns 0..1.
    Source: N. Chinchor, "MUC-4 evaluation metrics", 1992, with beta = 1.
    """
    predicted = scores > 0
    hits = int((predicted & is_target).sum())
    either = int(predicted.sum()) + int(is_target.sum())
    return 2 * hits / either if either else 0.0


def average_precision(is_target: Booleans, scores: NDArray[np.floating]) -> float:
    """Precision at each rank where recall rises, averaged by that rise; NaN without a target.

    Images of equal score share one rank. Parameters: `is_target` (n,) bool, `scores` (n,) without
    NaN, higher for likelier. Returns 0..1.
    Source: E. Voorhees, D. Harman, "TREC: Experiment and Evaluation in Information Retrieval",
    2005; without interpolation, as scikit-learn's `average_precision_score`.
    """
    if not is_target.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(is_target[order])
    last_of_ties = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits_there = hits[last_of_ties]
    rises = np.diff(hits_there, prepend=0)
    return float((rises * hits_there / (last_of_ties + 1)).sum() / hits_there[-1])


def area(values: NDArray[np.floating]) -> float:
    """Area under a curve over rounds: the mean of its values.

    Parameters: `values` (r,), one after each round, r >= 1. Returns a number in their unit.
    Source: the area under the learning curve of I. Guyon, G. Cawley, G. Dror, V. Lemaire, "Results
    of the Active Learning Challenge", JMLR W&CP 16, 2011; ours is over plain rounds, not their
    logarithm, and not set against chance.
    """
    return float(np.mean(values))


def rounds_until(recalls: NDArray[np.floating], level: float) -> float:
    """The first round, from 1, whose recall reaches `level`; infinity when none does.

    Parameters: `recalls` (r,) in 0..1, after each round; `level` in 0..1.
    Source: as `answers_until`, counted in rounds.
    """
    return _value_at(np.arange(1, len(recalls) + 1), recalls, level)


def answers_until(
    answer_counts: NDArray[np.integer], recalls: NDArray[np.floating], level: float
) -> float:
    """Answers given when recall first reached `level`; infinity when it did not.

    Parameters: `answer_counts` (r,) and `recalls` (r,) in 0..1, after each round; `level` in 0..1.
    Source: the cost to a recall target of D. D. Lewis, E. Yang, O. Frieder, "Certifying one-phase
    technology-assisted reviews", CIKM 2021.
    """
    return _value_at(answer_counts, recalls, level)


def _value_at(values: NDArray[np.integer], recalls: NDArray[np.floating], level: float) -> float:
    reached = np.flatnonzero(recalls >= level - 1e-9)  # 0.8 of 10 images is 8 images
    return float(values[reached[0]]) if len(reached) else float("inf")
