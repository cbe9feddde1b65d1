"""DECERN: discrepancy-confusion uncertainty, then calibrated variety."""

import numpy as np
from numpy.typing import NDArray

from app.engine.head import probabilities
from app.engine.strategies.clustering import best_of_clusters, fill_up, find_clusters
from app.engine.strategies.round_state import CLOSE_TO_LINE, Choice, RoundState, smallest

Doubles = NDArray[np.float64]

MASKED_SHARE = 0.1  # R
TYPICAL_WEIGHT = 0.8  # xi
CANDIDATES = 2_000  # most that are clustered
TINY = 1e-7


def decern(state: RoundState) -> Choice:
    """Images whose prediction changes most when they are mixed with a class, spread by k-means.

    Source: Y. Jin, X. Yang, "Combining Discrepancy-Confusion Uncertainty and Calibration Diversity
    for Active Fine-Grained Image Classification", arXiv 2509.24181, 2025. Our head
    is the classifier, and its two anchors are the positives and the negatives. Its gradient points
    the same way for every image, so the mask is the same for all; the paper fine-tunes the features
    between rounds, which frozen vectors leave out.
    The threshold mean + lambda std of the uncertainty has lambda = tanh(skewness), at least 0: it
    grows as a better head leaves few images uncertain.
    """
    vectors = state.index.vectors
    anchors = [rows for rows in (state.answers.positives, state.answers.negatives) if len(rows)]
    if len(anchors) < 2:
        order = smallest(np.abs(state.scores), state.size)
        return Choice.of(state.unanswered[order], CLOSE_TO_LINE)
    uncertainty = confusion(state)
    spread = uncertainty.std()
    skewness = ((uncertainty - uncertainty.mean()) ** 3).mean() / max(spread**3, TINY)
    threshold = uncertainty.mean() + np.tanh(max(skewness, 0)) * spread
    count = int(np.clip((uncertainty > threshold).sum(), state.size, CANDIDATES))
    order = smallest(-uncertainty, count)
    rows = state.unanswered[order]
    own = vectors[rows]
    labels, centres = find_clusters(own, state.size, state.rng, weights=uncertainty[order])
    to_centre = 1 - (own * centres[labels]).sum(axis=1) / np.maximum(
        np.linalg.norm(centres[labels], axis=1), TINY
    )
    to_anchors = np.min([1 - own @ _unit(vectors[rows].mean(axis=0)) for rows in anchors], axis=0)
    quality = -TYPICAL_WEIGHT * to_centre + (1 - TYPICAL_WEIGHT) * to_anchors
    chosen = best_of_clusters(labels, quality)
    return Choice.of(fill_up(rows[chosen], rows, state.size), CLOSE_TO_LINE)


def confusion(state: RoundState) -> Doubles:
    """The discrepancy-confusion uncertainty S of every unanswered image, (u,) float64, >= 0.

    Needs at least one positive and one negative among the answers of `state`. For each of the two
    anchors z_j (mean of the positives, of the negatives) and an image z of predicted class chance
    a_j: p_m is the prediction after mixing z toward z_j by a_j in the 10 % of dimensions with the
    largest weights, and beta_j = 1 - (1 + cos(z, z_j)) / 2. A reference prediction q counts
    H(p_m)^(1 - beta_j) + CE(q, p_m)^beta_j; S is the mean over anchors of the counts of the
    image's own prediction (times 0.9), of that mixed with the anchor's by a_j (times 0.1), and of
    that mixed by 0.1 a_j.
    Source: Jin, Yang 2025, as `decern`.
    """
    vectors, head = state.index.vectors, state.head
    scores = state.scores.astype(np.float64)
    p_yes = probabilities(scores.astype(np.float32)).astype(np.float64)
    mask_size = max(1, round(MASKED_SHARE * len(head.weights)))
    masked = np.argsort(-np.abs(head.weights), kind="stable")[:mask_size]
    masked_weights = np.zeros_like(head.weights)
    masked_weights[masked] = head.weights[masked]
    masked_scores = (vectors @ masked_weights)[state.unanswered].astype(np.float64)
    parts = []
    for rows, own_chance in (
        (state.answers.positives, p_yes),
        (state.answers.negatives, 1 - p_yes),
    ):
        mean = vectors[rows].mean(axis=0)
        anchor_scores = vectors[rows] @ head.weights + np.float32(head.bias)
        anchor_chance = float(probabilities(anchor_scores).mean())
        mixed_score = scores + own_chance * (float(mean @ masked_weights) - masked_scores)
        p_mixed = probabilities(mixed_score.astype(np.float32)).astype(np.float64)
        p_body = (1 - own_chance) * p_yes + own_chance * anchor_chance
        p_whole = (
            1 - MASKED_SHARE * own_chance
        ) * p_yes + MASKED_SHARE * own_chance * anchor_chance
        cosines = (vectors @ _unit(mean))[state.unanswered].astype(np.float64)
        beta = 1 - (1 + cosines) / 2
        entropy = _cross_entropy(p_mixed, p_mixed)

        parts += [
            share * (entropy ** (1 - beta) + _cross_entropy(reference, p_mixed) ** beta)
            for share, reference in (
                (1 - MASKED_SHARE, p_yes),
                (MASKED_SHARE, p_body),
                (1, p_whole),
            )
        ]
    total: Doubles = np.sum(parts, axis=0) / 2
    return total


def _cross_entropy(reference: Doubles, predicted: Doubles) -> Doubles:
    safe = np.clip(predicted, TINY, 1 - TINY)
    return -(reference * np.log(safe) + (1 - reference) * np.log(1 - safe))


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return vector / np.float32(max(float(np.linalg.norm(vector)), TINY))
