"""Whether chances keep their word: of images said to be a yes by so much, how many were."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.engine.answers import Value
from app.engine.remaining import binomial_interval

Floats = NDArray[np.floating]

LEVEL = 0.9  # of the intervals
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
