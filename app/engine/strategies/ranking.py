"""Strategies that order the unanswered images by one number and take the first."""

import numpy as np

from app.engine.strategies.round_state import (
    CLOSE_TO_LINE,
    EXPLORATION,
    LIKELY,
    OPENING,
    Choice,
    RoundState,
    smallest,
)


def pf_ma(state: RoundState) -> Choice:
    """Positive-first, most ambiguous: predicted positives nearest the boundary, then the rest.

    Those with score >= 0 by ascending score, then those below 0 by descending score.
    Source: K. Zaher, O. Buisson, A. Joly, "Positive-First Most Ambiguous: A Simple Active Learning
    Criterion for Interactive Retrieval of Rare Categories", arXiv 2603.24480, 2026, in the reading
    of docs/algorithms.md, "Strategies".
    """
    scores = state.scores[state.unanswered]
    above = np.flatnonzero(scores >= 0)
    below = np.flatnonzero(scores < 0)
    from_above = above[smallest(scores[above], state.size)]
    from_below = below[smallest(-scores[below], state.size - len(from_above))]
    return Choice.of(state.unanswered[np.concatenate([from_above, from_below])], CLOSE_TO_LINE)


def most_ambiguous(state: RoundState) -> Choice:
    """Nearest the boundary on either side.

    Source: D. D. Lewis, W. A. Gale, "A sequential algorithm for training text classifiers",
    SIGIR 1994 (uncertainty sampling).
    """
    order = smallest(np.abs(state.scores[state.unanswered]), state.size)
    return Choice.of(state.unanswered[order], CLOSE_TO_LINE)


def most_positive(state: RoundState) -> Choice:
    """Highest score first.

    Source: relevance feedback by certainty, as in G. V. Cormack, M. R. Grossman, "Evaluation of
    machine-learning protocols for technology-assisted review", SIGIR 2014. The same order under
    the name `tropel`: G. Patterson et al., "Tropel: Crowdsourcing Detectors with Minimal Training",
    HCOMP 2015, with a classifier on frozen features in place of their detector.
    """
    order = smallest(-state.scores[state.unanswered], state.size)
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
