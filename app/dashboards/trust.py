"""What the head makes of the images, and the answers it finds hard to believe."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.dashboards.moments import Moment, Plot, rounded
from app.engine.answers import Value
from app.engine.head import probabilities
from app.engine.reliability import group_chances
from app.searching import VALUES

SURPRISES = 8
FEW_ANSWERS = 60  # with so many it takes a gap of some 13 points to tell it from chance
BINS = 24


@dataclass(frozen=True)
class Surprise:
    """An answer that the head finds hard to believe."""

    image_id: int
    answer: str
    chance: float


@dataclass(frozen=True)
class HeadView:
    """What the head makes of the images."""

    plot: Plot | None
    calibration: Plot | None
    surprises: list[Surprise]


def tell_head(moment: Moment) -> HeadView:
    """Can the search be trusted? Scores on both sides of the boundary, and likely slips."""
    if moment.head is None:
        return HeadView(None, None, [])
    rows, values = moment.answers.rows, moment.answers.values
    scores = moment.all_scores[rows]
    wrong = np.flatnonzero((values * scores < 0) & (values != Value.UNSURE))
    wrong = wrong[np.argsort(-np.abs(scores[wrong]), kind="stable")][:SURPRISES]
    chances = moment.chances(scores[wrong])
    surprises = [
        Surprise(
            int(moment.index.image_ids[rows[place]]),
            "yes" if values[place] == Value.YES else "no",
            float(chance),
        )
        for place, chance in zip(wrong, chances, strict=True)
    ]
    return HeadView(_plot_scores(moment, scores), _plot_calibration(moment), surprises)


def _plot_scores(moment: Moment, scores: NDArray[np.float32]) -> Plot:
    values, open_scores = moment.answers.values, moment.scores
    everything = np.concatenate([scores, open_scores])
    low, high = float(everything.min()), float(everything.max())
    edges = np.linspace(min(low, -0.1), max(high, 0.1), BINS + 1)
    counts = [
        np.histogram(part, edges)[0]
        for part in (scores[values == Value.YES], scores[values == Value.NO], open_scores)
    ]
    above = int((open_scores > 0).sum())
    return Plot(
        "scores",
        "histogram",
        "Scores on both sides of the boundary",
        f"{above:,} images without an answer lie above the boundary, where the search would say "
        f"yes; {len(open_scores) - above:,} lie below. The better yes and no are apart, the more "
        "the search has understood.",
        ["From", "To", "Yes", "No", "No answer"],
        [
            [*rounded(start, stop), int(yes), int(no), int(rest)]
            for start, stop, yes, no, rest in zip(edges, edges[1:], *counts, strict=False)
        ],
        {"boundary": 0.0},
    )


def _plot_calibration(moment: Moment) -> Plot | None:
    """The chances that the head of each round gave its images, beside the answers that came."""
    shown = [one for one in moment.last_showings if one.has_head and one.image_id in moment.values]
    chances = probabilities(np.array([one.score for one in shown], np.float32))
    values = np.array([VALUES[moment.values[one.image_id]] for one in shown], np.int8)
    groups = group_chances(chances.astype(np.float64), values)
    if not groups:
        return None
    answered = sum(one.answered for one in groups)
    yes = sum(one.yes for one in groups)
    promised = sum(one.predicted * one.answered for one in groups)
    off = sum(not one.share_low <= one.predicted <= one.share_high for one in groups)
    if answered < FEW_ANSWERS:
        verdict = "So few answers say little yet: the bars show how much is open."
    elif off <= len(groups) // 5:  # one of ten misses by chance
        verdict = "Its chances agree with the answers, as far as these can tell."
    else:
        verdict = (
            f"In {off} of {len(groups)} groups the answers differ by more than chance: there the "
            f"bar misses the diagonal. Chances on this page are corrected for it."
        )
    return Plot(
        "calibration",
        "calibration",
        "Does it keep its word?",
        f"Of {answered:,} images whose chance was said before their answer, the search expected "
        f"{promised:,.0f} yes and {yes:,} came. {verdict}",
        [
            "From",
            "To",
            "Mean chance",
            "Yes",
            "Answers",
            "Share of yes",
            "Low",
            "High",
        ],
        [
            [
                *rounded(one.low, one.high, one.predicted),
                one.yes,
                one.answered,
                *rounded(one.yes / one.answered, one.share_low, one.share_high),
            ]
            for one in groups
        ],
        {},
    )
