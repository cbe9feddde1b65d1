"""Strategies that choose for variety in the vectors, whatever the head says."""

import numpy as np
from numpy.typing import NDArray

from app.engine.strategies.clustering import draw_at_most, fill_up, find_clusters
from app.engine.strategies.round_state import EXPLORATION, Choice, RoundState

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

TYPICAL_POOL = 2_000  # images that typiclust clusters: k-means over more takes seconds
TYPICAL_NEIGHBOURS = 20
SMALLEST_CLUSTER = 5
COVER_POOL = 2_000  # images between which probcover knows all distances
COVER_CLUSTERS = 20
PURITY = 0.95
CHUNK_ROWS = 16_384


def coreset(state: RoundState) -> Choice:
    """Farthest first: each next image is the least similar to all answered and chosen ones.

    Source: O. Sener, S. Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set
    Approach", ICLR 2018, the greedy k-centre. Theirs works in the last layer of a net that is
    trained anew; here the vectors are frozen, so the order depends on the answered rows alone.
    """
    vectors = state.index.vectors
    closest = _closest(vectors, state.unanswered, vectors[state.answers.rows])
    chosen: list[int] = []
    for _ in range(state.size):
        position = int(np.argmin(closest))
        chosen.append(position)
        similarities = state.index.similarities(vectors[state.unanswered[position]])
        closest = np.maximum(closest, similarities[state.unanswered])
        closest[chosen] = np.inf
    return Choice.of(state.unanswered[chosen], EXPLORATION)


def typiclust(state: RoundState) -> Choice:
    """The most typical image of each of the largest clusters that hold no answer.

    k-means into as many clusters as answers and wanted images together; typicality is the inverse
    of the mean distance to the 20 nearest neighbours within the cluster. Clusters of fewer than 5
    images come last.
    Source: G. Hacohen, A. Dekel, D. Weinshall, "Active Learning on a Budget: Opposite Strategies
    Suit High and Low Budgets", ICML 2022. Their self-supervised features are our frozen vectors; of
    collections above 2,000 images a random part is clustered.
    """
    answered = state.answers.rows
    drawn = draw_at_most(state.unanswered, TYPICAL_POOL, state.rng)
    rows = np.concatenate([answered, drawn])
    vectors = state.index.vectors[rows]
    is_open = np.arange(len(rows)) >= len(answered)
    cluster_count = min(len(rows), len(answered) + state.size)
    labels, _ = find_clusters(vectors, cluster_count, state.rng)
    sizes = np.bincount(labels, minlength=cluster_count)
    has_answer = np.bincount(labels[~is_open], minlength=cluster_count) > 0
    order = np.lexsort((-sizes, sizes < SMALLEST_CLUSTER, has_answer))
    chosen = []
    for label in order[: state.size]:
        members = np.flatnonzero((labels == label) & is_open)
        if len(members):
            everyone = vectors[labels == label]
            chosen.append(rows[members[np.argmax(_typicality(vectors[members], everyone))]])
    return Choice.of(fill_up(np.array(chosen, np.int64), state.unanswered, state.size), EXPLORATION)


def probcover(state: RoundState) -> Choice:
    """Greedy cover: each next image is the one whose ball holds most images not yet covered.

    The radius is the largest at which 95 % of the balls hold one k-means cluster only. Answered
    images cover from the start.
    Source: O. Yehuda, A. Dekel, G. Hacohen, D. Weinshall, "Active Learning Through a Covering
    Lens", NeurIPS 2022. They cluster into the number of classes, which a search does not know: 20
    here. Of collections above 2,000 images a random part is covered.
    """
    drawn = draw_at_most(state.unanswered, COVER_POOL, state.rng)
    vectors = state.index.vectors[drawn]
    similarities = vectors @ vectors.T
    labels, _ = find_clusters(vectors, min(COVER_CLUSTERS, len(drawn)), state.rng)
    radius = _pure_radius(similarities, labels)
    in_ball = similarities >= radius
    answered = state.index.vectors[state.answers.rows]
    is_covered = _closest(state.index.vectors, drawn, answered) >= radius
    gains = in_ball[:, ~is_covered].sum(axis=1)
    chosen: list[int] = []
    for _ in range(min(state.size, len(drawn))):
        gains[chosen] = -1
        chosen.append(int(np.argmax(gains)))
        is_new = in_ball[chosen[-1]] & ~is_covered
        gains -= in_ball[:, is_new].sum(axis=1)
        is_covered |= is_new
    return Choice.of(fill_up(drawn[chosen], state.unanswered, state.size), EXPLORATION)


def _closest(vectors: Floats, rows: Integers, others: Floats) -> Floats:
    """For each of `rows` the similarity to the most similar of `others` (-inf without any)."""
    closest = np.full(len(rows), -np.inf, np.float32)
    if len(others):
        for start in range(0, len(rows), CHUNK_ROWS):
            part = rows[start : start + CHUNK_ROWS]
            closest[start : start + CHUNK_ROWS] = (vectors[part] @ others.T).max(axis=1)
    return closest


def _typicality(members: Floats, cluster: Floats) -> Floats:
    """Inverse mean distance of each member to its nearest neighbours in the cluster."""
    distances = np.sqrt(np.maximum(2 - 2 * members @ cluster.T, 0))
    neighbours = min(TYPICAL_NEIGHBOURS, len(cluster) - 1)
    if neighbours == 0:
        return np.ones(len(members), np.float32)
    nearest = np.sort(distances, axis=1)[:, 1 : neighbours + 1]  # the first is the image itself
    typicality: Floats = 1 / (nearest.mean(axis=1) + 1e-5)
    return typicality


def _pure_radius(similarities: Floats, labels: Integers) -> float:
    """The lowest cosine whose balls are pure for 95 % of the images.

    A ball is pure down to the similarity of the nearest image of another cluster, so the radius is
    just above the 95th percentile of those.
    """
    others = np.where(labels[:, None] == labels, np.float32(-np.inf), similarities).max(axis=1)
    limit = np.quantile(others, PURITY, method="higher")
    return float(np.nextafter(limit, np.float32(np.inf), dtype=np.float32))
