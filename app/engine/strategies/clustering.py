"""Parts of strategies that seek variety: seeding, k-means and a bounded pool."""

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


def draw_at_most(rows: Integers, limit: int, rng: np.random.Generator) -> Integers:
    """All of `rows`, or `limit` of them drawn uniformly without replacement.

    Parameters: `rows` (r,) int64, ascending; `limit` >= 0; `rng`, used only when r > limit.
    Returns (min(r, limit),) int64, ascending. Source: simple random sampling, W. G. Cochran,
    "Sampling Techniques", 1977, chapter 2.
    """
    return rows if len(rows) <= limit else np.sort(rng.choice(rows, limit, replace=False))


def seed_far_apart(
    squares: NDArray[np.floating],
    products_with: Callable[[int], NDArray[np.floating]],
    k: int,
    rng: np.random.Generator,
    *,
    first: int,
) -> Integers:
    """k-means++ seeding: each next point is drawn in proportion to its squared distance.

    Parameters: `squares` (n,) squared lengths; `products_with(i)` (n,) inner products with point i;
    `k` >= 1; `first`, the point to begin with, 0..n-1. Returns up to min(k, n) different positions,
    int64, in the order drawn; fewer when all other points coincide with one already taken.
    Source: D. Arthur, S. Vassilvitskii, "k-means++", SODA 2007.
    """
    taken = [first]
    distances = np.full(len(squares), np.inf)
    while len(taken) < min(k, len(squares)):
        last = taken[-1]
        own = squares + squares[last] - 2 * products_with(last)
        distances = np.minimum(distances, np.maximum(own, 0))
        distances[distances < 1e-6] = 0  # float32 leaves a rest where points coincide
        distances[last] = 0
        total = distances.sum()
        if total == 0:
            break
        taken.append(int(rng.choice(len(squares), p=distances / total)))
    return np.array(taken, np.int64)


def seed_greedily(
    vectors: Floats,
    k: int,
    random: np.random.RandomState,
    weights: NDArray[np.floating] | None = None,
) -> Integers:
    """k-means++ seeding with trials: of 2 + log k draws each time the one that leaves least.

    The same draws as scikit-learn's `kmeans_plusplus`, which turns float32 vectors into float64
    anew for each of them; here they are turned once, and where most distances will be asked for all
    are computed at once. Distances are in float64, rounded to float32.

    Parameters: `vectors` (n, d) float32; `k`, 1..n; `random`; `weights` (n,) >= 0, None when all
    weigh the same. Returns (k,) int64 positions; repeats where fewer than `k` vectors differ.
    Source: D. Arthur, S. Vassilvitskii, "k-means++", SODA 2007, with the trials of their section 7.
    """
    count = len(vectors)
    mass = np.ones(count, np.float32) if weights is None else weights.astype(np.float32)
    trials = 2 + int(np.log(k))
    doubles = vectors.astype(np.float64)
    squares = np.einsum("ij,ij->i", doubles, doubles)
    products = doubles @ doubles.T if 8 * k * trials > count else None

    def squared_distances(positions: Integers) -> Floats:
        own = doubles[positions] @ doubles.T if products is None else products[positions]
        rounded = (squares[positions, None] - 2 * own + squares).astype(np.float32)
        distances: Floats = np.maximum(rounded, 0)
        return distances

    taken = np.empty(k, np.int64)
    taken[0] = random.choice(count, p=mass / mass.sum())  # nosec B311 # numpy's, drawn by the seed
    nearest = squared_distances(taken[:1])
    left = nearest @ mass
    nearest = nearest[0]
    for step in range(1, k):
        draws = random.uniform(size=trials) * left  # nosec B311 # numpy's, drawn by the seed
        candidates = np.minimum(np.searchsorted(np.cumsum(mass * nearest), draws), count - 1)
        after = np.minimum(nearest, squared_distances(candidates))
        all_left = after @ mass[:, None]
        best = int(np.argmin(all_left))
        taken[step], nearest, left = candidates[best], after[best], all_left[best]
    return taken


def find_clusters(
    vectors: Floats, k: int, rng: np.random.Generator, weights: NDArray[np.floating] | None = None
) -> tuple[Integers, Floats]:
    """k-means, one start, at most 30 steps.

    Parameters: `vectors` (n, d) float32; `k`, 1..n, otherwise ValueError; `rng` seeds the start;
    `weights` (n,) >= 0, None when all weigh the same. Returns the cluster of each vector, (n,)
    int64 in 0..k-1, and the centroids (k, d) float32, which are not of unit length. Clusters may be
    empty when fewer than `k` vectors differ.
    Source: S. P. Lloyd, "Least squares quantization in PCM", 1982, by scikit-learn.
    """

    def start(centred: Floats, k: int, random_state: np.random.RandomState) -> Floats:
        return centred[seed_greedily(centred, k, random_state, weights)]

    means = KMeans(k, init=start, n_init=1, max_iter=30, random_state=int(rng.integers(2**31)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct vectors than clusters
        labels = means.fit_predict(vectors, sample_weight=weights)
    return labels.astype(np.int64), means.cluster_centers_.astype(np.float32)


def best_of_clusters(labels: Integers, quality: NDArray[np.floating]) -> Integers:
    """Positions of the best of each cluster, ascending; of equals the first.

    Parameters: `labels` (n,) int64, the cluster of each; `quality` (n,) without NaN, higher is
    better. Returns (c,) int64, one position for each of the c clusters that are not empty.
    Source: the last step of DECERN and ALFA-Mix (`decern.py`, `uncertainty.py`).
    """
    best = [
        np.flatnonzero(labels == label)[np.argmax(quality[labels == label])]
        for label in np.unique(labels)
    ]
    return np.sort(np.array(best, np.int64))


def fill_up(chosen: Integers, ranking: Integers, size: int) -> Integers:
    """`chosen`, and after them the first others of `ranking`, until there are `size`.

    Parameters: `chosen` (c,) and `ranking` (r,), rows, int64, each without repeats; `size` >= 0.
    Returns (size,) int64 without repeats; fewer when both together hold fewer, and of more than
    `size` chosen the first. Source: ours, since a round is full whatever a strategy runs out of.
    """
    missing = size - len(chosen)
    others = ranking[~np.isin(ranking, chosen)][: max(missing, 0)]
    return np.concatenate([chosen, others])[:size].astype(np.int64)
