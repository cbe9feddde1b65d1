"""The head: a logistic regression on the answers of one search, and its line between yes and no.

This is the only importer of sklearn.linear_model.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from threadpoolctl import ThreadpoolController

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

LINES = np.linspace(-3.0, 3.0, 121)  # scores at which a line may be
SOFTNESS = 0.3  # a score this far above a line counts as above it for three quarters
HOLD = 0.05  # what a line at 1 or -1 has to gain in F1 over one at 0
MOST_TELLING = 128  # training vectors that would be scored otherwise without their own lesson


def use_one_thread() -> None:
    """Have the products of numpy and scipy be done by the thread that asks for them.

    Fits and strategies are many small products: threads that wait for each other make a fit of 7 ms
    last 300 ms on a busy machine, and a round takes three times the processor. The setting is the
    process's, so it is made once and not for each fit, which would have to wait for all others.
    Long passes have threads of their own (app/engine/together.py), and so has FAISS.
    """
    for library in ThreadpoolController().lib_controllers:
        if library.user_api == "blas" and "faiss" not in library.filepath:
            library.set_num_threads(1)


use_one_thread()


@dataclass(frozen=True, eq=False)
class Head:
    """`score = x · weights + bias`; above `line` means predicted positive.

    `weights` (d,) float32. The centring of the vectors is already part of `bias`, so that the head
    applies to the vectors of an index as they are. `line` is 0 but for a head that `find_line`
    looked at; strategies choose by the scores as they are fitted, everybody else is given the head
    `at_line`.
    """

    weights: Floats
    bias: float
    line: float = 0.0

    def at_line(self) -> "Head":
        """The same head with its line at 0: above 0 means predicted positive."""
        return Head(self.weights, self.bias - self.line)


def fit_head(
    positives: Floats,
    negatives: Floats,
    *,
    pseudo_negatives: Floats,
    centre: Floats,
    C: float = 10.0,
    tol: float = 1e-4,
) -> Head:
    """Class-balanced, L2-regularised logistic regression on centred vectors.

    Parameters: `positives` (p, d) and `negatives` (m, d), float32 unit rows; `pseudo_negatives`
    (q, d) train as negatives do; `centre` (d,) is subtracted from every vector; `C` > 0, the
    inverse strength of the regularisation; `tol` > 0, the largest slope of the loss at which the
    fit may end. p >= 1 and m + q >= 1, otherwise ValueError.
    Both classes weigh the same in total, however many vectors they have.
    Source: a light classifier on frozen features as K. Zaher, O. Buisson, A. Joly, arXiv
    2603.24480, 2026, use with PF-MA. Centring, class weights and C = 10 are our settings:
    docs/algorithms.md, "The head".
    """
    # In double precision: a head must not depend on the order of its training rows.
    vectors = np.concatenate([positives, negatives, pseudo_negatives], dtype=np.float64)
    vectors -= centre
    is_positive = np.arange(len(vectors)) < len(positives)
    if not 0 < len(positives) < len(vectors):
        raise ValueError("a head needs a positive, and a negative or a pseudo-negative")
    weighed = _weigh(len(positives), len(vectors))
    model = LogisticRegression(C=C, class_weight=weighed, max_iter=1000, tol=tol)
    with config_context(assume_finite=True, skip_parameter_validation=True):
        model.fit(vectors, is_positive)
    weights = model.coef_[0]
    return Head(weights.astype(np.float32), float(model.intercept_[0] - weights @ centre))


def find_line(
    head: Head,
    positives: Floats,
    negatives: Floats,
    *,
    pseudo_negatives: Floats,
    centre: Floats,
    C: float,
) -> float:
    """The score that parts yes from no best, told from what the head was fitted on.

    Each answer is scored as if the head had not learnt from it (approximate leave-one-out, for the
    128 vectors that the head depends on most: with the others it would hardly differ), and the
    line is where F1 over the answers, counted softly, less 0.05 line², is highest.
    Parameters: `head` of `fit_head`, and what it was given: `positives` (p, d), `negatives` (m, d),
    `pseudo_negatives` (q, d), `centre` (d,), `C` > 0. Returns a score of -3..3 on the scale of
    `head`; 0 with fewer than two positives or no negative, or where all score the same: they tell
    nothing.
    Source: K. R. Rad, A. Maleki, "A scalable estimate of the out-of-sample prediction error via
    approximate leave-one-out cross-validation", JRSS B 82, 2020; the threshold of highest F1 as in
    Z. C. Lipton, C. Elkan, B. Naryanaswamy, "Optimal thresholding of classifiers to maximize F1
    measure", ECML 2014. The soft counts and the hold of 0 are ours: few answers place a line badly.
    """
    if len(positives) < 2 or not len(negatives):
        return 0.0
    vectors = np.concatenate([positives, negatives, pseudo_negatives])
    is_positive = np.arange(len(vectors)) < len(positives)
    weighed = _weigh(len(positives), len(vectors))
    scores = (vectors @ head.weights + np.float32(head.bias)).astype(np.float64)
    if not np.ptp(scores) > 1e-6:  # also where one is not a number
        return 0.0
    left_out = _leave_out(
        vectors,
        scores,
        is_positive,
        np.where(is_positive, weighed[True], weighed[False]),
        centre,
        C,
    )
    answered = left_out[: len(positives) + len(negatives)]
    above = expit((answered[:, None] - LINES) / SOFTNESS)
    right, wrong = above[: len(positives)].sum(axis=0), above[len(positives) :].sum(axis=0)
    f1 = 2 * right / (right + wrong + len(positives))
    return float(LINES[np.argmax(f1 - HOLD * LINES**2)])


def _leave_out(
    vectors: Floats,
    scores: Doubles,
    is_positive: NDArray[np.bool_],
    weights: Doubles,
    centre: Floats,
    C: float,
) -> Doubles:
    """Scores (n,) of training vectors by a head that had not seen them, to first order.

    With h = x' H^-1 x, H being the curvature of the whole loss, one step of Newton without vector i
    moves its score by g h / (1 - w h), where g and w are the first and second derivative of its
    own loss. H is inverted among the vectors of the largest w, centred by w for the intercept.
    """
    chances = expit(scores)
    slopes = weights * (chances - is_positive)
    bends = np.maximum(weights * chances * (1.0 - chances), 1e-12)
    kept = np.argsort(-bends, kind="stable")[:MOST_TELLING]
    slopes, bends = slopes[kept], bends[kept]
    some = vectors[kept] - centre
    some -= ((bends @ some) / bends.sum()).astype(np.float32)
    products = (some @ some.T).astype(np.float64)
    solved = np.linalg.solve(products + np.diag(1.0 / (C * bends)), products)
    leverages = C * (np.diag(products) - (products * solved.T).sum(axis=1)) + 1.0 / bends.sum()
    left_out = scores.copy()
    left_out[kept] += slopes * leverages / np.maximum(1.0 - bends * leverages, 1e-3)
    return left_out


def _weigh(positives: int, count: int) -> dict[bool, float]:
    """Class weights as "balanced" would find them, which takes as long as a fit of few answers."""
    return {True: count / (2 * positives), False: count / (2 * (count - positives))}


def probabilities(scores: Floats) -> Floats:
    """Sigmoid of scores, without overflow at either end.

    Parameters: `scores` (n,), any finite numbers, 0 being the boundary. Returns (n,) float32 in
    0..1: the head's own probabilities, not calibrated.
    Source: the inverse of the logit link that `fit_head` fits.
    """
    chances: Floats = expit(np.asarray(scores, dtype=np.float64)).astype(np.float32)
    return chances
