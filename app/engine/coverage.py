"""How much of a target's visual variety the positives span: with known labels, and estimated.

The idea is the class coverage of K. Zaher, O. Buisson, A. Joly, "Positive-First Most Ambiguous",
arXiv 2603.24480, 2026: how well the positives span the visual variety of a target. The definitions
are ours, so figures cannot be compared with the paper's: docs/algorithms.md, "Coverage".
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

CHUNK_ROWS = 2_048
ROUNDING = 1e-5  # an image found is within any radius of itself, whatever float32 makes of 1.0
MODES_SEED = 0
REDRAWS = 200  # of the target, for the interval of an estimate
LIKELIEST = 1_000  # unanswered images that an estimate looks at one by one
TAIL = 250  # of all others, evenly by rank


def class_radius(targets: Floats) -> float:
    """The cosine at which two images of a target count as alike.

    The median over all its images of the similarity to the k-th nearest classmate,
    k = max(1, round(0.05 t)). Parameters: `targets` (t, d) float32 unit rows, t >= 1. Returns a
    cosine in -1..1; a target of one image has radius 1.
    Source: docs/algorithms.md, "Coverage".
    """
    t = len(targets)
    if t == 1:
        return 1.0
    k = max(1, round(0.05 * t))
    kth_similarities = []
    for start in range(0, t, CHUNK_ROWS):
        similarities = targets[start : start + CHUNK_ROWS] @ targets.T
        own = np.arange(len(similarities))
        similarities[own, start + own] = -np.inf  # nobody is their own classmate
        kth_similarities.append(np.partition(similarities, t - k, axis=1)[:, t - k])
    return float(np.median(np.concatenate(kth_similarities)))


def coverage(targets: Floats, found: Booleans, radius: float) -> float:
    """Share of a target's images within `radius` of one that was found.

    Parameters: `targets` (t, d) float32 unit rows, t >= 1; `found` (t,) bool, which of them are
    positives; `radius`, a cosine, from `class_radius`. Returns 0..1: 0 with none found, 1 with all,
    never less when more are found.
    Source: docs/algorithms.md, "Coverage", after Zaher, Buisson, Joly 2026.
    """
    if not found.any():
        return 0.0
    reached = 0
    for start in range(0, len(targets), CHUNK_ROWS):
        similarities = targets[start : start + CHUNK_ROWS] @ targets[found].T
        reached += int((similarities.max(axis=1) >= radius - ROUNDING).sum())
    return reached / len(targets)


def find_modes(targets: Floats) -> Integers:
    """The looks of a target: k-means into min(10, ceil(t / 5)) modes, with a fixed seed.

    Parameters: `targets` (t, d) float32 unit rows, t >= 1. Returns the mode of each, (t,) int64
    from 0; fewer modes when fewer rows differ.
    Source: docs/algorithms.md, "Coverage"; k-means as in scikit-learn, the best of 10 starts.
    """
    distinct = len(np.unique(targets, axis=0))
    modes = min(10, math.ceil(len(targets) / 5), distinct)
    labels = KMeans(modes, n_init=10, random_state=MODES_SEED).fit_predict(targets)
    return np.asarray(labels, dtype=np.int64)


def mode_coverage(modes: Integers, found: Booleans) -> float:
    """Share of a target's modes with at least one image found.

    Parameters: `modes` (t,) int64 from `find_modes`, t >= 1; `found` (t,) bool. Returns 0..1.
    Source: docs/algorithms.md, "Coverage".
    """
    return len(np.unique(modes[found])) / len(np.unique(modes))


@dataclass(frozen=True)
class CoverageEstimate:
    """Coverage of a live search, where the target's images are not known.

    `coverage` in 0..1 with its 90 % interval `low`..`high`, and `target_count`, the images that the
    target is thought to have, positives included.
    """

    coverage: float
    low: float
    high: float
    target_count: float


@dataclass(frozen=True, eq=False)
class Candidates:
    """Images that stand for all unanswered ones: `places` (c,) int64 and `weights` (c,) int64.

    Each place, a position among the unanswered images, counts as `weights` images >= 1.
    """

    places: Integers
    weights: Integers


def choose_candidates(scores: NDArray[np.floating]) -> Candidates:
    """The likeliest images, one by one, and an evenly spaced part of all others.

    The others are unlikely each, but many: left out, they make coverage far too high.
    Parameters: `scores` (u,) of the unanswered images. Returns at most 1,250 of them, whose weights
    sum to u.
    Source: systematic sampling, W. G. Cochran, "Sampling Techniques", 1977, chapter 8.
    """
    count = len(scores)
    if count <= LIKELIEST + TAIL:
        return Candidates(np.arange(count), np.ones(count, np.int64))
    edges = np.linspace(LIKELIEST, count, TAIL + 1).round().astype(np.int64)
    middles = (edges[:-1] + edges[1:]) // 2
    # Only these ranks are put in order: half the time of a sort.
    order = np.argpartition(-scores, [LIKELIEST - 1, *middles])
    best = order[:LIKELIEST]
    return Candidates(
        np.concatenate([best[np.argsort(-scores[best], kind="stable")], order[middles]]),
        np.concatenate([np.ones(LIKELIEST, np.int64), np.diff(edges)]),
    )


def estimate_coverage(
    positives: Floats,
    candidates: Floats,
    chances: NDArray[np.floating],
    *,
    weights: Integers,
    rng: np.random.Generator,
) -> CoverageEstimate:
    """Coverage by the positives of what the target is likely to be.

    The target is the positives, each counting 1, and the candidates, each counting its chance. Its
    radius is taken from the positives alone. The interval redraws which candidates belong to the
    target, and with several versions of the chances also which version holds. What the head cannot
    see (a look that resembles no positive) is in neither.

    Parameters: `positives` (p, d), p >= 1, and `candidates` (c, d), c >= 0, float32 unit rows, the
    images of `choose_candidates`; `chances` in 0..1, calibrated probabilities that they are of the
    target: (c,), or (v, c) for v >= 1 equally likely versions (`Calibration.draws`); `weights`
    (c,) int64, how many images each stands for; `rng` redraws.
    Source: docs/algorithms.md, "Coverage"; the interval is a parametric bootstrap, B. Efron,
    R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 6.
    """
    radius = class_radius(positives)
    is_near = np.zeros(len(candidates), dtype=bool)
    for start in range(0, len(candidates), CHUNK_ROWS):
        similarities = candidates[start : start + CHUNK_ROWS] @ positives.T
        is_near[start : start + CHUNK_ROWS] = similarities.max(axis=1) >= radius - ROUNDING
    found = len(positives)
    versions = np.atleast_2d(chances)
    versions = versions[np.arange(REDRAWS) % len(versions)]
    is_one = weights == 1
    drawn = np.empty(versions.shape, np.int64)
    drawn[:, is_one] = rng.random((REDRAWS, int(is_one.sum()))) < versions[:, is_one]
    drawn[:, ~is_one] = rng.binomial(weights[~is_one], versions[:, ~is_one])
    versions = versions * weights
    shares = (found + drawn[:, is_near].sum(axis=1)) / (found + drawn.sum(axis=1))
    low, high = np.quantile(shares, [0.05, 0.95])
    # The middle version: a few that hold everything likely would pull a mean far off.
    near, total = (np.median(found + part.sum(axis=1)) for part in (versions[:, is_near], versions))
    return CoverageEstimate(float(near / total), float(low), float(high), float(total))
