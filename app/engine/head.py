"""The head: a logistic regression on the answers of one search.

This is the only importer of sklearn.linear_model.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from threadpoolctl import ThreadpoolController

Floats = NDArray[np.float32]


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
    """`score = x · weights + bias`; above 0 means predicted positive.

    `weights` (d,) float32. The centring of the vectors is already part of `bias`, so that the head
    applies to the vectors of an index as they are.
    """

    weights: Floats
    bias: float


def fit_head(
    positives: Floats,
    negatives: Floats,
    *,
    pseudo_negatives: Floats,
    centre: Floats,
    C: float = 10.0,
) -> Head:
    """Class-balanced, L2-regularised logistic regression on centred vectors.

    Parameters: `positives` (p, d) and `negatives` (m, d), float32 unit rows; `pseudo_negatives`
    (q, d) train as negatives do; `centre` (d,) is subtracted from every vector; `C` > 0, the
    inverse strength of the regularisation. p >= 1 and m + q >= 1, otherwise ValueError.
    Both classes weigh the same in total, however many vectors they have.
    Source: a light classifier on frozen features as K. Zaher, O. Buisson, A. Joly, arXiv
    2603.24480, 2026, use with PF-MA. Centring, class weights and C = 10 are our settings:
    docs/algorithms.md, "The head".
    """
    vectors = np.concatenate([positives, negatives, pseudo_negatives]).astype(np.float64) - centre
    is_positive = np.arange(len(vectors)) < len(positives)
    counts = {True: len(positives), False: len(vectors) - len(positives)}
    if not counts[True] or not counts[False]:
        raise ValueError("a head needs a positive, and a negative or a pseudo-negative")
    # As "balanced" would find them, which takes as long as the fit of few answers does.
    weighed = {kind: len(vectors) / (2 * count) for kind, count in counts.items()}
    # In double precision: a head must not depend on the order of its training rows.
    model = LogisticRegression(C=C, class_weight=weighed, max_iter=1000)
    with config_context(assume_finite=True, skip_parameter_validation=True):
        model.fit(vectors, is_positive)
    weights = model.coef_[0]
    return Head(weights.astype(np.float32), float(model.intercept_[0] - weights @ centre))


def probabilities(scores: Floats) -> Floats:
    """Sigmoid of scores, without overflow at either end.

    Parameters: `scores` (n,), any finite numbers, 0 being the boundary. Returns (n,) float32 in
    0..1: the head's own probabilities, not calibrated.
    Source: the inverse of the logit link that `fit_head` fits.
    """
    return (0.5 * (1.0 + np.tanh(0.5 * np.asarray(scores, dtype=np.float64)))).astype(np.float32)
