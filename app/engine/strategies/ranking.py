"""Strategies that order the unanswered images by one number and take the first."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from app.engine.metric import Metric
from app.engine.parts import evenly
from app.engine.strategies.fitting import fit_on_roots, take_roots
from app.engine.strategies.round_state import (
    CLOSE_TO_LINE,
    EXPLORATION,
    LIKELY,
    OPENING,
    Choice,
    RoundState,
    smallest,
)

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

SCORED_TWICE = 1_000  # most likely images that `rarefind` has a second head look at
SHORTLIST = 300  # most likely images that `rarefind` compares with single answers
RESEMBLANCE = 8.0  # what a difference of 1 between two cosines counts in its scores
NEAREST = 3  # answers of each kind that an image is compared with
COMPANY = 10  # neighbours that tell how crowded it is around an image
MOST_POSITIVES = 30  # that tell how crowded it commonly is around a positive
MOST_TYPICAL = 256  # positives that tell how similar they commonly are to each other


def rarefind(state: RoundState) -> Choice:
    """Find while most answers are no, refine as more are yes; never twice the same look in a round.

    The share of yes among the answers, uploaded examples included, is the share of the round that
    `pf_ma` chooses; those come first. The others are the likeliest of the rest by score + 8 (cosine
    to the nearest three positives - cosine to the nearest three negatives - what it is more crowded
    there than around the positives, all in the index's metric), best first, passing over those
    closer to an image of this round than the positives commonly are to each other, while there are
    others. The score is the head's or, where no answered image has a number below 0, the mean of it
    and that of a second head, on the vectors' roots.
    Source: ours, chosen by measuring; docs/algorithms.md, "`rarefind`, in ten lines".
    """
    positives, negatives = state.lesson.positives, state.lesson.negatives
    yes_share = len(positives) / (len(positives) + len(negatives))
    by_doubt = pf_ma(replace(state, size=round(yes_share * state.size)))
    doubtful = by_doubt.rows
    count = state.size - len(doubtful)
    if count == 0:
        return by_doubt
    likely, vectors, scores = _find_likely(state, doubtful)
    merits = scores + RESEMBLANCE * _compare(state.index.metric, vectors, positives, negatives)
    ranking = np.argsort(-merits, kind="stable")
    likely, vectors = likely[ranking], vectors[ranking]
    limit = _common_similarity(positives)
    likely = likely[_spread(vectors, state.index.read(doubtful), limit, count)]
    return Choice(
        np.concatenate([doubtful, likely]),
        (CLOSE_TO_LINE,) * len(doubtful) + (LIKELY,) * len(likely),
    )


def pf_ma(state: RoundState) -> Choice:
    """Positive-first, most ambiguous: predicted positives nearest the boundary, then the rest.

    Those with score >= 0 by ascending score, then those below 0 by descending score.
    Source: K. Zaher, O. Buisson, A. Joly, "Positive-First Most Ambiguous: A Simple Active Learning
    Criterion for Interactive Retrieval of Rare Categories", arXiv 2603.24480, 2026, in the reading
    of docs/algorithms.md, "Strategies".
    """
    above = np.flatnonzero(state.scores >= 0)
    below = np.flatnonzero(state.scores < 0)
    from_above = above[smallest(state.scores[above], state.size)]
    from_below = below[smallest(-state.scores[below], state.size - len(from_above))]
    return Choice.of(state.unanswered[np.concatenate([from_above, from_below])], CLOSE_TO_LINE)


def most_ambiguous(state: RoundState) -> Choice:
    """Nearest the boundary on either side.

    Source: D. D. Lewis, W. A. Gale, "A sequential algorithm for training text classifiers",
    SIGIR 1994 (uncertainty sampling).
    """
    order = smallest(np.abs(state.scores), state.size)
    return Choice.of(state.unanswered[order], CLOSE_TO_LINE)


def most_positive(state: RoundState) -> Choice:
    """Highest score first.

    Source: relevance feedback by certainty, as in G. V. Cormack, M. R. Grossman, "Evaluation of
    machine-learning protocols for technology-assisted review", SIGIR 2014. The same order under
    the name `tropel`: G. Patterson et al., "Tropel: Crowdsourcing Detectors with Minimal Training",
    HCOMP 2015, with a classifier on frozen features in place of their detector.
    """
    order = smallest(-state.scores, state.size)
    return Choice.of(state.unanswered[order], LIKELY)


def random(state: RoundState) -> Choice:
    """Drawn uniformly: the baseline that every strategy must beat.

    Source: simple random sampling, W. G. Cochran, "Sampling Techniques", 1977, chapter 2.
    """
    return Choice.of(state.rng.permutation(state.unanswered)[: state.size], EXPLORATION)


def opening_only(state: RoundState) -> Choice:
    """Nearest to the opening vector, whatever was answered.

    Source: O. Moll et al., "SeeSaw", arXiv 2208.06497: feedback that does worse than this is none.
    """
    similarities = state.index.similarities(state.opening.vector)[state.unanswered]
    order = smallest(-similarities, state.size)
    return Choice.of(state.unanswered[order], OPENING)


def adaptive(state: RoundState) -> Choice:
    """Most positive while there are fewer yes than no, otherwise most ambiguous.

    Examples that are not images of the collection count as yes.
    Source: R. T. Mullapudi, F. Poms, W. R. Mark, D. Ramanan, K. Fatahalian, "Learning Rare Category
    Classifiers on a Tight Labeling Budget", ICCV 2021. Their refresh of the deep features every
    five rounds is left out: the vectors are frozen.
    """
    positive_count = len(state.answers.positives) + len(state.opening.examples)
    if positive_count < len(state.answers.negatives):
        return most_positive(state)
    return most_ambiguous(state)


def _find_likely(state: RoundState, doubtful: Integers) -> tuple[Integers, Floats, Floats]:
    """The likeliest rows but the `doubtful` ones, ascending, with their vectors and scores.

    Where no answered image has a number below 0, as behind a ReLU, a second head is fitted on the
    roots of all vectors, and the score of the 1,000 that the first one likes best is the mean of
    both. Two heads that err differently err less together.
    Source: averaging, L. Breiman, "Bagging predictors", Machine Learning 24, 1996; over two views
    of the same vectors it is ours.
    """
    lesson, wanted = state.lesson, SHORTLIST + state.size
    most = max(SCORED_TWICE, wanted) if lesson.has_roots else wanted
    order = np.sort(smallest(-state.scores, most))
    order = order[~np.isin(state.unanswered[order], doubtful)]
    rows, scores = state.unanswered[order], state.scores[order]
    vectors = state.index.read(rows)
    if lesson.has_roots:
        other = fit_on_roots(lesson)
        second = take_roots(vectors) @ other.weights + np.float32(other.bias)
        scores = np.asarray((scores + second) / 2, np.float32)
        best = np.sort(smallest(-scores, wanted))
        rows, vectors, scores = rows[best], vectors[best], scores[best]
    return rows, vectors, scores


def _compare(metric: Metric, vectors: Floats, positives: Floats, negatives: Floats) -> Floats:
    """Cosine to the nearest positives, minus that to the nearest negatives if there are any, minus
    what it is more crowded there than around the positives, all in the metric; (k,).

    How crowded it is around an image is the mean cosine to the ten most similar among all three;
    around the positives, the median over up to 30 of them.
    Source: the local density of A. Conneau et al., "Word translation without parallel data", ICLR
    2018 (CSLS), against images that are near to everything; to count it from the positives' own
    on, so that a crowded target loses little, is ours.
    """
    count, answered = len(vectors), len(vectors) + len(positives)
    some = count + evenly(len(positives), MOST_POSITIVES)
    everyone = np.concatenate([vectors, positives, negatives])
    cosines, around = np.split(
        metric.similarities(everyone, np.concatenate([np.arange(count), some])), [count]
    )
    resemblances = _mean_of_largest(cosines[:, count:answered], NEAREST)
    if len(negatives):
        resemblances = resemblances - _mean_of_largest(cosines[:, answered:], NEAREST)
    usual = np.median(_crowding(around, some))
    crowding = np.maximum(_crowding(cosines, np.arange(count)) - usual, np.float32(0))
    return np.asarray(resemblances - crowding, np.float32)


def _crowding(cosines: Floats, own: Integers) -> Floats:
    """The mean of each row's ten largest (as far as there are), that of its `own` column aside,
    which is overwritten."""
    cosines[np.arange(len(own)), own] = -2.0
    return _mean_of_largest(cosines, min(COMPANY, cosines.shape[1] - 1))


def _mean_of_largest(cosines: Floats, most: int) -> Floats:
    """The mean of each row's `most` largest, as far as there are; (k,)."""
    count = min(most, cosines.shape[1])
    means: Floats = np.partition(cosines, -count, axis=1)[:, -count:].mean(axis=1)
    return means


def _common_similarity(positives: Floats) -> float:
    """The median similarity of a positive, of up to 256 of them, to the nearest of all others;
    above any while there is one."""
    if len(positives) == 1:
        return 2.0
    some = evenly(len(positives), MOST_TYPICAL)
    similarities = positives[some] @ positives.T
    similarities[np.arange(len(some)), some] = -2.0
    return float(np.median(similarities.max(axis=1)))


def _spread(vectors: Floats, taken: Floats, limit: float, k: int) -> Integers:
    """The first `k` positions no closer than `limit` to `taken` or each other, then the first."""
    is_passed: NDArray[np.bool_] = np.any(vectors @ taken.T > limit, axis=1)
    chosen: list[int] = []
    for position in range(len(vectors)):
        if len(chosen) < k and not is_passed[position]:
            chosen.append(position)
            is_passed |= vectors @ vectors[position] > limit
    others = np.setdiff1d(np.arange(len(vectors)), chosen)
    return np.concatenate([np.array(chosen, np.int64), others[: k - len(chosen)]])
