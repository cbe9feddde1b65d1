"""The looks of a target: a map of them in two dimensions, and the gaps that no positive is near."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA

from app.engine.coverage import ROUNDING, class_radius, find_modes

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]

FEWEST = 4  # positives that a map can be drawn from
MOST = 512  # positives that its axes are fitted on
MOST_SORTED = 200  # images that groups are found among
SMALLEST_GAP = 2  # images
SMALLEST_SPREAD = 1e-5  # of a coordinate: below it images are the same, but for rounding


@dataclass(frozen=True, eq=False)
class Gap:
    """Likely images that resemble each other and no positive.

    `medoid`, position of the one that stands for them; `members` (m,) int64, positions, the medoid
    first and then by similarity to it; `expected` 0..m, the sum of their chances.
    """

    medoid: int
    members: Integers
    expected: float


def find_gaps(positives: Floats, candidates: Floats, chances: Floats, *, limit: int) -> list[Gap]:
    """Where the target is likely and nothing is confirmed, the largest first.

    Candidates beyond the radius of every positive are covered greedily by balls of that radius,
    each time the ball with the largest sum of chances; single images are no gap.
    Parameters: `positives` (p, d), p >= 1, and `candidates` (c, d), c >= 0, unit rows; `chances`
    (c,) in 0..1; `limit` >= 0 gaps at most. Positions are those of `candidates`; ties by position.
    Source: the greedy cover of V. Chvatal, "A greedy heuristic for the set-covering problem", 1979,
    with the class radius of docs/algorithms.md, "Coverage".
    """
    radius = class_radius(positives.astype(np.float32)) - ROUNDING
    is_far = (candidates @ positives.T).max(axis=1, initial=-1.0) < radius
    far = np.flatnonzero(is_far)
    similarities = candidates[far] @ candidates[far].T
    is_beside = similarities >= radius
    np.fill_diagonal(is_beside, True)  # whatever rounding makes of 1.0
    weights = np.asarray(chances, np.float64)[far]
    gaps: list[Gap] = []
    while len(gaps) < limit and len(far):
        sums = is_beside @ weights
        sums[is_beside.sum(axis=1) < SMALLEST_GAP] = -1.0
        best = int(np.argmax(sums))
        if sums[best] <= 0:
            break
        own = np.flatnonzero(is_beside[best])
        own = own[np.lexsort((own, -similarities[best, own], own != best))]
        gaps.append(Gap(int(far[best]), far[own], float(weights[own].sum())))
        is_beside[own] = False
        is_beside[:, own] = False
        weights[own] = 0.0
    return gaps


def sort_looks(vectors: Floats) -> Integers:
    """Sort images that look alike into at most ten groups.

    Modes are found among 200 evenly spaced ones; the others go to the most similar middle.
    Parameters: `vectors` (t, d) unit rows, t >= 1. Returns the group of each, (t,) int64 from 0.
    Source: `find_modes`, of docs/algorithms.md, "Coverage".
    """
    some = vectors[:: -(-len(vectors) // MOST_SORTED)]
    modes = find_modes(np.asarray(some, np.float32))
    middles = np.stack([some[modes == mode].mean(axis=0) for mode in np.unique(modes)])
    middles /= np.linalg.norm(middles, axis=1, keepdims=True)
    return np.asarray(np.argmax(vectors @ middles.T, axis=1), dtype=np.int64)


def lay_out(positives: Floats, others: Floats) -> tuple[Floats, Floats] | None:
    """Places in a plane: the two directions in which the positives differ most.

    The axes are fitted on the first 4, 8, 16, … 512 positives, so that they stay as they are from
    round to round; where they change they are turned to fit the places of before. Beginnings whose
    images are all the same (one frame again and again) have no axes and are passed over.
    Parameters: `positives` (p, d) in the order they were found, p >= 4 (otherwise ValueError), and
    `others` (o, d), unit rows. Returns (p, 2) and (o, 2) float64, or None without axes.
    Source: principal components, K. Pearson, 1901; the turn by P. H. Schoenemann, "A generalized
    solution of the orthogonal Procrustes problem", Psychometrika 31, 1966.
    """
    if len(positives) < FEWEST:
        raise ValueError(f"a map needs at least {FEWEST} positives")
    axes: Floats | None = None
    origin: Floats = np.empty(0)
    count = FEWEST // 2
    while (count := 2 * count) <= min(len(positives), MOST):
        first = np.asarray(positives[:count], np.float64)
        if np.ptp(first, axis=0).max() < SMALLEST_SPREAD:
            continue
        # From a fixed start: the same positives give the same axes.
        new = PCA(2, svd_solver="arpack", random_state=0).fit(first).components_
        if axes is None:
            axes, origin = new, first.mean(axis=0) @ new.T
        else:
            half = first[: count // 2]
            before, after = half @ axes.T - origin, half @ new.T
            turn, _ = orthogonal_procrustes(
                after - after.mean(axis=0), before - before.mean(axis=0)
            )
            axes = turn.T @ new
            origin = (half @ axes.T).mean(axis=0) - before.mean(axis=0)
    if axes is None:
        return None
    return positives @ axes.T - origin, others @ axes.T - origin
