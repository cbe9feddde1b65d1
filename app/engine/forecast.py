"""How many yes the round that is shown next will bring, told before its answers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, ndtri

from app.engine.answers import Value

Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]

LEVEL = 0.9
HALF_LIFE = 1.5  # rounds after which an answer counts half
USUAL_SHIFT = -1.0  # a head whose classes weigh the same promises too much of a rare target
USUAL_WEIGHT = 2.0  # of that, before answers say better
WANDERING = 2.0  # a shift differs from round to round: its variance counts so many times
VERSIONS = 33  # of the shift, for an interval


@dataclass(frozen=True)
class Forecast:
    """Yes among the images of the next round: `value`, on average, and `low`..`high` at `level`."""

    value: float
    low: int
    high: int
    level: float


def forecast_yes(
    scores: Floats, *, shown_scores: Floats, values: NDArray[np.int8], rounds_ago: Floats
) -> Forecast | None:
    """How many yes to expect, from how the head's chances of the latest rounds kept their word.

    Rounds are chosen alike: what those before brought, beside what their scores promised, is told
    as one shift of all scores, latest rounds first. (What is left in the whole collection is told
    otherwise, app/engine/remaining.py: images that a strategy picks are likelier than their score.)
    Parameters: `scores` (k,) of the images of the next round, 0 being the boundary; `shown_scores`
    (m,), each the score by the head that chose its image, rounds without a head left out; `values`
    (m,) int8 of Value, unsure ones skipped; `rounds_ago` (m,) >= 1, 1 for the latest round. Numbers
    of yes are 0..k. Returns None without an answer to go by: a head alone is off by half.
    Source: a calibration of one parameter, D. R. Cox, "Two further applications of a model for
    binary regression", Biometrika 45, 1958, with a normal prior and its normal approximation; sums
    of unequal chances, S. D. Poisson, 1837. Half-life and prior are ours, chosen by measuring:
    docs/algorithms.md, "The next round".
    """
    sure = values != Value.UNSURE
    if not sure.any():
        return None
    told = np.asarray(shown_scores, np.float64)[sure]
    is_yes = values[sure] == Value.YES
    weights = 0.5 ** ((np.asarray(rounds_ago, np.float64)[sure] - 1) / HALF_LIFE)

    def slope(shift: float) -> float:
        surplus = float(weights @ (expit(told + shift) - is_yes))
        return surplus + USUAL_WEIGHT * (shift - USUAL_SHIFT)

    reach = float(weights.sum()) / USUAL_WEIGHT + 1  # so far the answers can pull it, at most
    shift = float(brentq(slope, USUAL_SHIFT - reach, USUAL_SHIFT + reach))
    chances = expit(told + shift)
    information = float(weights @ (chances * (1 - chances))) + USUAL_WEIGHT
    spread = np.sqrt(WANDERING / information)
    shifts = shift + spread * ndtri((np.arange(VERSIONS) + 0.5) / VERSIONS)
    next_scores = np.asarray(scores, np.float64)
    up_to = np.cumsum(count_yes(expit(next_scores + shifts[:, None])).mean(axis=0))
    low, high = np.searchsorted(up_to, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = float(expit(next_scores + shift).sum())
    return Forecast(value, min(int(low), int(value)), max(int(high), int(np.ceil(value))), LEVEL)


def count_yes(chances: Doubles) -> Doubles:
    """P(m yes) for m of 0..k, by multiplying out.

    Parameters: `chances` (v, k) in 0..1, of k images in v versions. Returns (v, k + 1) float64.
    Source: the sum of independent trials of unequal chances, S. D. Poisson, 1837.
    """
    counts = np.zeros((len(chances), chances.shape[1] + 1))
    counts[:, 0] = 1.0
    for chance in chances.T[:, :, None]:
        counts[:, 1:] = counts[:, 1:] * (1 - chance) + counts[:, :-1] * chance
        counts[:, :1] *= 1 - chance
    return counts
