"""How far two people's answers agree, and which images are worth a second answer."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.engine.answers import Value
from app.engine.head import fit_head, probabilities

Floats = NDArray[np.float32]

FOLDS = 5
SMALLEST_WEIGHT = 1e-3  # of an annotator or a model that does no better than guessing


@dataclass(frozen=True)
class Agreement:
    """Two people's answers on the same images. Unsure by either is neither agreement nor conflict.

    `raw` is the share of equal answers, `kappa` and `ac1` the same corrected for agreement by
    chance; None where it is undefined.
    """

    both_yes: int
    yes_no: int  # the first said yes, the second no
    no_yes: int
    both_no: int
    unsure: int
    raw: float | None
    kappa: float | None
    ac1: float | None

    @property
    def compared(self) -> int:
        """Images that both answered yes or no."""
        return self.both_yes + self.yes_no + self.no_yes + self.both_no


def measure_agreement(first: NDArray[np.int8], second: NDArray[np.int8]) -> Agreement:
    """Raw agreement, Cohen's kappa and Gwet's AC1 of two people.

    Parameters: `first` and `second` (n,) int8 of Value, on the same images. Kappa is undefined
    without a compared image, and where chance alone agrees always: when both said yes to all, or
    no to all. AC1 is undefined without a compared image only.
    Source: J. Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological
    Measurement 20, 1960; K. L. Gwet, "Computing inter-rater reliability and its variance in the
    presence of high agreement", British Journal of Mathematical and Statistical Psychology 61,
    2008.
    """
    sure = (first != Value.UNSURE) & (second != Value.UNSURE)
    yes_first, yes_second = first[sure] == Value.YES, second[sure] == Value.YES
    both_yes = int((yes_first & yes_second).sum())
    yes_no = int((yes_first & ~yes_second).sum())
    no_yes = int((~yes_first & yes_second).sum())
    both_no = int((~yes_first & ~yes_second).sum())
    n = both_yes + yes_no + no_yes + both_no
    raw = kappa = ac1 = None
    if n:
        raw = (both_yes + both_no) / n
        p, q = (both_yes + yes_no) / n, (both_yes + no_yes) / n
        by_chance = p * q + (1 - p) * (1 - q)
        is_mixed = both_yes + yes_no + no_yes > 0 and yes_no + no_yes + both_no > 0
        kappa = (raw - by_chance) / (1 - by_chance) if is_mixed else None
        mean = (p + q) / 2
        by_chance = 2 * mean * (1 - mean)
        ac1 = (raw - by_chance) / (1 - by_chance)
    return Agreement(both_yes, yes_no, no_yes, both_no, len(first) - n, raw, kappa, ac1)


def guess_unseen(
    vectors: Floats, values: NDArray[np.int8], *, rng: np.random.Generator
) -> Floats | None:
    """The chance of yes of each answered image, by a head that did not see its answer.

    Parameters: `vectors` (n, d) float32 unit rows; `values` (n,) int8, YES or NO; `rng` deals the
    images into 5 parts, each kind evenly. Returns (n,) float32 in 0..1; None with fewer than two
    of either kind.
    Source: cross-validation, M. Stone, "Cross-validatory choice and assessment of statistical
    predictions", Journal of the Royal Statistical Society B 36, 1974.
    """
    is_yes = values == Value.YES
    if min(is_yes.sum(), (~is_yes).sum()) < 2:
        return None
    parts = np.empty(len(values), np.int64)
    for kind in (is_yes, ~is_yes):
        parts[kind] = rng.permutation(int(kind.sum())) % FOLDS
    chances = np.empty(len(values), np.float32)
    for part in np.unique(parts):
        away = parts == part
        head = fit_head(
            vectors[~away & is_yes],
            vectors[~away & ~is_yes],
            pseudo_negatives=vectors[:0],
            centre=vectors.mean(axis=0),
        )
        chances[away] = probabilities(vectors[away] @ head.weights + np.float32(head.bias))
    return chances


def weigh_answers(
    chances: Floats, yes: NDArray[np.int64], no: NDArray[np.int64], *, agreement: float
) -> NDArray[np.float64]:
    """How sure each image's answers are; the lowest are worth another answer most.

    Parameters: `chances` (n,) in 0..1 of yes, from `guess_unseen`; `yes` and `no` (n,) answers of
    each kind, at least one an image; `agreement` in 0..1, the share of equal answers where two
    people gave one. Returns (n,) in 0..1.
    The likelier answer's probability, averaged over the head, the answers, and one answer to come
    that could say either; each weighed by how much better than always saying the commoner answer it
    has been. All people weigh the same here: few images have two answers, too few to tell people
    apart.
    Source: H. W. Goh, J. Mueller, "ActiveLab: Active Learning with Re-Labeling by Multiple
    Annotators", arXiv 2301.11856, 2023, with the weights of H. W. Goh, U. Tkachenko, J. Mueller,
    "CROWDLAB", arXiv 2210.06812, 2022; that all people weigh the same is ours.
    """
    count = yes + no
    said_yes = yes > no
    commoner = max(said_yes.mean(), 1 - said_yes.mean())
    wrong_at_most = max(1 - commoner, SMALLEST_WEIGHT)
    person = max(1 - (1 - agreement) / wrong_at_most, SMALLEST_WEIGHT)
    model_agreement = float(((chances > 0.5) == said_yes).mean())
    model = max(1 - (1 - model_agreement) / wrong_at_most, SMALLEST_WEIGHT)
    model *= float(np.sqrt(count.mean()))
    of_yes = model * chances + person * (yes * agreement + no * (1 - agreement))
    total = model + person * count
    likelier = np.maximum(of_yes, total - of_yes)
    sure: NDArray[np.float64] = (likelier + person / 2) / (total + person)
    return sure
