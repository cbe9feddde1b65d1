"""How a strategy fits its head: which unanswered images stand in as negatives.

Source of pseudo-negatives: R. T. Mullapudi et al., "Learning Rare Category Classifiers on a Tight
Labeling Budget", ICCV 2021: of a rare target, images low in the current ranking are safe negatives.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from app.engine.head import Head, find_line, fit_head
from app.engine.strategies.round_state import Lesson, smallest

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

WITHOUT_A_NO = 100  # pseudo-negatives while nothing is answered no: a head needs two classes
PER_ANSWER = 100  # f_a of the paper
MOST = 500  # the paper's numbers reach 5,000, for the same heads at ten times the time
STEADYING = 100  # pseudo-negatives of `rarefind`, always
LOOSE_C = 30.0
EARLY = 1e-3  # ten times the usual: the second head's fit ends after about half of the steps


def fit_on_answers(lesson: Lesson) -> Head:
    """On the answers alone; 100 pseudo-negatives only while nothing is answered no. C = 10.

    The head of `pf-ma` and of all strategies without a rule of their own.
    Source: docs/algorithms.md, "The head".
    """
    return fit_with_pseudo_negatives(lesson, 0 if len(lesson.negatives) else WITHOUT_A_NO)


def fit_on_tight_budget(lesson: Lesson) -> Head:
    """With 100 (p + 0.1 m) pseudo-negatives, at most 500: the head of `adaptive`. C = 10.

    Source: Mullapudi et al. 2021, with their f_a = 100; the limit is ours.
    """
    wanted = round(PER_ANSWER * (len(lesson.positives) + 0.1 * len(lesson.negatives)))
    return fit_with_pseudo_negatives(lesson, min(wanted, MOST))


def fit_steadied(lesson: Lesson) -> Head:
    """Loosely regularised (C = 30), always with 100 pseudo-negatives: the head of `rarefind`.

    A loose head tells the target from its look-alikes by few answers; alone it would forget the
    rest of the collection, which the pseudo-negatives hold in place. Its line between yes and no is
    that of `find_line`.
    Source: ours, chosen by measuring; docs/algorithms.md, "`rarefind`, in ten lines".
    """
    positives, negatives, centre = lesson.positives, lesson.negatives, lesson.index.mean
    drawn = lesson.index.read(draw_unlike(lesson, STEADYING))
    head = fit_head(positives, negatives, pseudo_negatives=drawn, centre=centre, C=LOOSE_C)
    line = find_line(head, positives, negatives, pseudo_negatives=drawn, centre=centre, C=LOOSE_C)
    return replace(head, line=line)


def fit_on_roots(lesson: Lesson) -> Head:
    """As `fit_steadied`, with pseudo-negatives drawn anew, but on roots, ending early: the
    second head of `rarefind`.

    Returns a head that applies to what `take_roots` makes of vectors, and to nothing else. Raises
    ValueError when there is neither a negative nor a pseudo-negative.
    Source: ours, chosen by measuring; docs/algorithms.md, "`rarefind`, in ten lines". That a fit
    which ends early is one regularised more: Y. Yao, L. Rosasco, A. Caponnetto, "On early stopping
    in gradient descent learning", Constructive Approximation 26, 2007.
    """
    pseudo_negatives = lesson.index.read(draw_unlike(lesson, STEADYING))
    return fit_head(
        take_roots(lesson.positives),
        take_roots(lesson.negatives),
        pseudo_negatives=take_roots(pseudo_negatives),
        # Not the mean of all roots, which would take a pass: a centre near it ends as soon.
        centre=take_roots(lesson.index.mean[None])[0],
        C=LOOSE_C,
        tol=EARLY,
    )


def take_roots(vectors: Floats) -> Floats:
    """The square roots of vectors' numbers, of those below 0 nothing, brought to unit length.

    Parameters: `vectors` (k, d) float32. Returns (k, d) float32 rows, of unit length but for those
    without a number above 0. A few large numbers no longer outweigh all others.
    Source: R. Arandjelovic, A. Zisserman, "Three things everyone should know to improve object
    retrieval", CVPR 2012; F. Perronnin, J. Sanchez, T. Mensink, "Improving the Fisher kernel for
    large-scale image classification", ECCV 2010.
    """
    roots: Floats = np.maximum(vectors, np.float32(0))
    lengths = np.sqrt(roots.sum(axis=1, keepdims=True))  # of what will be roots
    np.sqrt(roots, out=roots)
    roots /= np.maximum(lengths, np.float32(1e-12))
    return roots


def fit_with_pseudo_negatives(lesson: Lesson, wanted: int, C: float = 10.0) -> Head:
    """Fit with up to `wanted` unanswered images that resemble the positives least.

    Parameters: `wanted` >= 0, as in `draw_unlike`; `C` > 0 as in `fit_head`. Returns the head, for
    vectors of the lesson's index. Raises ValueError when there is neither a negative nor a
    pseudo-negative.
    Source: Mullapudi et al. 2021.
    """
    return fit_head(
        lesson.positives,
        lesson.negatives,
        pseudo_negatives=lesson.index.read(draw_unlike(lesson, wanted)),
        centre=lesson.index.mean,
        C=C,
    )


def draw_unlike(lesson: Lesson, wanted: int) -> Integers:
    """Rows of up to `wanted` unanswered images that resemble the positives little.

    Twice as many rows as wanted are drawn, and the half less similar to the positives' mean is
    kept: that is a draw from the bottom half of the ranking without ranking the collection.

    Parameters: `wanted` >= 0. Returns rows (k,) int64, least similar first; of u unanswered rows at
    most u / 2, rounded up.
    Source: Mullapudi et al. 2021. They rank by the classifier of the round before; similarity to
    the positives' mean stands in for it, so that a round depends on its answers alone.
    """
    if wanted == 0:
        return lesson.unanswered[:0]
    most = min(2 * wanted, len(lesson.unanswered))
    rows = np.sort(lesson.rng.choice(lesson.unanswered, most, replace=False))
    similarities = lesson.index.read(rows) @ lesson.positives.mean(axis=0)
    return rows[smallest(similarities, (len(rows) + 1) // 2)]
