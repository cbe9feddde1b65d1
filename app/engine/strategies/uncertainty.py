"""Strategies that choose varied images among those the head is unsure of."""

import numpy as np
from numpy.typing import NDArray

from app.engine.head import probabilities
from app.engine.strategies.clustering import (
    best_of_clusters,
    fill_up,
    find_clusters,
    seed_far_apart,
)
from app.engine.strategies.round_state import CLOSE_TO_LINE, Choice, RoundState, smallest

Floats = NDArray[np.float32]

MIX_STEP = 1 / 32
MIX_POOL = 2_000  # candidates that are clustered, the easiest to flip first


def badge(state: RoundState) -> Choice:
    """k-means++ on gradient embeddings `(p - round(p)) x`: unsure images, far from each other.

    Starts with the longest gradient, the image nearest the line.
    Source: J. T. Ash et al., "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower
    Bounds", ICLR 2020. Of a net's last layer the gradient has one block a class; a binary head has
    one, and the features below it stay as they are.
    """
    chances = probabilities(state.scores)
    lengths = chances - (chances >= 0.5)
    rows = state.unanswered

    def products_with(position: int) -> Floats:
        similarities = state.index.similarities(state.index.vectors[rows[position]])[rows]
        products: Floats = lengths[position] * lengths * similarities
        return products

    first = int(np.argmax(np.abs(lengths)))
    taken = seed_far_apart(lengths**2, products_with, state.size, state.rng, first=first)
    ranking = rows[smallest(-np.abs(lengths), 2 * state.size)]
    return Choice.of(fill_up(rows[taken], ranking, state.size), CLOSE_TO_LINE)


def alfa_mix(state: RoundState) -> Choice:
    """Images whose prediction flips when they are mixed a little with the mean of a class.

    Mixing goes up in steps of 1/32 toward the mean of the positives and of the negatives until
    enough images flip; k-means spreads the choice, and of each cluster the image nearest to its
    centre is shown.
    Source: A. Parvaneh et al., "Active Learning by Feature Mixing", CVPR 2022. They find a mixing
    rate for each dimension by the gradient; with a linear head one rate for all has a closed form:
    an image of score s flips toward an anchor of score t of the other sign from s / (s - t) on.
    """
    scores = state.scores.astype(np.float64)
    vectors = state.index.vectors
    rate = np.full(len(scores), np.inf)
    for anchor_rows in (state.answers.positives, state.answers.negatives):
        if len(anchor_rows):
            mean = vectors[anchor_rows].mean(axis=0)
            anchor_score = float(mean @ state.head.weights) + state.head.bias
            flips = (scores >= 0) != (anchor_score >= 0)
            rate[flips] = np.minimum(rate[flips], scores[flips] / (scores[flips] - anchor_score))
    order = smallest(rate, MIX_POOL)
    step = np.ceil(rate[order[: state.size]].max() / MIX_STEP) * MIX_STEP
    candidates = order[rate[order] <= step]
    rows = state.unanswered[candidates]
    labels, centres = find_clusters(vectors[rows], state.size, state.rng)
    offsets = ((vectors[rows] - centres[labels]) ** 2).sum(axis=1)
    chosen = best_of_clusters(labels, -offsets)
    return Choice.of(fill_up(rows[chosen], state.unanswered[order], state.size), CLOSE_TO_LINE)
