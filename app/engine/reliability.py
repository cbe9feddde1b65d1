"""Whether chances keep their word: of images said to be a yes by so much, how many were."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, ndtr

from app.engine.answers import Value
from app.engine.forecast import count_yes
from app.engine.remaining import binomial_interval

Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]

LEVEL = 0.9  # of the intervals of groups
SURE = 0.95  # that chances do not keep their word, before it is said
EXACT = 500  # answers: of more the number of yes is told by the normal distribution
MOST_GROUPS = 8
PER_GROUP = 12  # answers: fewer tell hardly anything of a share


@dataclass(frozen=True)
class Group:
    """Answers whose images were given much the same chance.

    `low`..`high` and their mean `predicted`, chances in 0..1; `yes` of `answered`; the share of yes
    with its exact 90 % interval, `share_low`..`share_high`.
    """

    low: float
    high: float
    predicted: float
    yes: int
    answered: int
    share_low: float
    share_high: float


def group_chances(chances: Floats, values: NDArray[np.int8]) -> list[Group]:
    """Sort answers by the chance that was said before, into groups of as equal number as can be.

    Parameters: `chances` (k,) in 0..1, each told before its answer; `values` (k,) int8 of Value,
    unsure ones skipped. Returns at most 8 groups of 12 answers or more (one group where there are
    fewer), lowest chance first; none without an answer.
    Source: reliability diagrams, A. H. Murphy, R. L. Winkler, "Reliability of subjective
    probability forecasts", Applied Statistics 26, 1977; intervals by Clopper, Pearson 1934.
    """
    sure = values != Value.UNSURE
    order = np.argsort(chances[sure], kind="stable")
    told, is_yes = chances[sure][order], values[sure][order] == Value.YES
    if not len(told):
        return []
    groups = []
    for part in np.array_split(np.arange(len(told)), min(MOST_GROUPS, len(told) // PER_GROUP) or 1):
        yes = int(is_yes[part].sum())
        share_low, share_high = binomial_interval(yes, len(part), LEVEL)
        groups.append(
            Group(
                float(told[part[0]]),
                float(told[part[-1]]),
                float(told[part].mean()),
                yes,
                len(part),
                share_low,
                share_high,
            )
        )
    return groups


@dataclass(frozen=True)
class Total:
    """All answers together: how many yes their chances promised, and how many came.

    `promised`, the sum of the chances; `yes` of `answered`; `low`..`high`, the numbers of yes among
    which it would be at 95 % if every chance kept its word.
    """

    promised: float
    yes: int
    answered: int
    low: int
    high: int

    @property
    def promises_too_much(self) -> bool:
        """Fewer yes came than chance explains."""
        return self.yes < self.low

    @property
    def promises_too_little(self) -> bool:
        """More yes came than chance explains."""
        return self.yes > self.high


def sum_chances(chances: Floats, values: NDArray[np.int8]) -> Total:
    """Set the sum of the chances beside the number of yes, which small groups are blind to.

    Seven groups that each came a little short may all be within their own intervals, and far from
    their word together.
    Parameters: `chances` (k,) in 0..1, each told before its answer; `values` (k,) int8 of Value,
    unsure ones skipped.
    Source: the sum of independent trials of unequal chances, S. D. Poisson, 1837: exact by
    multiplying out, for many answers by its normal approximation with a correction for continuity.
    """
    sure = values != Value.UNSURE
    told = np.asarray(chances[sure], np.float64)
    count = len(told)
    up_to = _add_up(told) if count <= EXACT else _add_up_many(told)
    tail = (1 - SURE) / 2
    # The numbers of yes that are neither among the rarest few nor among the rarest many.
    low = int(np.searchsorted(up_to, tail, side="right"))
    high = int(np.searchsorted(up_to, 1 - tail, side="left"))
    yes = int((values[sure] == Value.YES).sum())
    return Total(float(told.sum()), yes, count, low, min(high, count))


def too_many_miss(missing: int, groups: int) -> bool:
    """Whether more groups miss their interval than chance explains, at 95 %.

    Parameters: 0 <= `missing` <= `groups`, each of which misses with a chance of 10 % at most.
    Source: the binomial distribution.
    """
    return missing > 0 and float(bdtrc(missing - 1, groups, 1 - LEVEL)) < 1 - SURE


def _add_up(chances: Doubles) -> Doubles:
    """P(number of yes <= m) for m of 0..k, (k + 1,) float64."""
    return np.asarray(np.cumsum(count_yes(chances[None])[0]))


def _add_up_many(chances: Doubles) -> Doubles:
    """As `_add_up`, approximately."""
    spread = np.sqrt((chances * (1 - chances)).sum())
    steps = np.arange(len(chances) + 1) + 0.5 - chances.sum()
    return np.asarray(ndtr(steps / spread) if spread else (steps > 0).astype(np.float64))
