"""What the head makes of the images, and the answers it finds hard to believe."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.answers import VALUES
from app.dashboards.moments import Moment, Plot, rounded
from app.engine.answers import Value
from app.engine.head import probabilities
from app.engine.numerals import plural, spaced
from app.engine.reliability import SURE, Group, Total, group_chances, sum_chances, too_many_miss

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
        f"{plural(above, 'image')} without an answer {'lies' if above == 1 else 'lie'} above the "
        f"boundary, where the search would say yes; {spaced(len(open_scores) - above)} below. The "
        "better yes and no are apart, the more the search has understood.",
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
    total = sum_chances(chances.astype(np.float64), values)
    return Plot(
        "calibration",
        "calibration",
        "Does it keep its word?",
        f"Of {plural(total.answered, 'image')} whose chance was said before "
        f"{'its' if total.answered == 1 else 'their'} answer, the search expected "
        f"{spaced(total.promised)} yes and {spaced(total.yes)} came. {judge_word(total, groups)}",
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


def judge_word(total: Total, groups: list[Group]) -> str:
    """Whether chances keep their word, as a sentence: all together first, then group by group."""
    elsewhere = (
        "Counts and estimates elsewhere on this page go by what came, not by these promises."
    )
    if total.promises_too_much or total.promises_too_little:
        off = "high" if total.promises_too_much else "low"
        span = spaced(total.low)
        if total.low < total.high:
            span += f" to {spaced(total.high)}"
        return (
            f"These chances were too {off}: had they been right, {span} yes would have come "
            f"({100 * SURE:.0f} % sure). {elsewhere}"
        )
    if total.answered < FEW_ANSWERS:
        return "So few answers say little yet: the bars show how much is open."
    over = sum(one.predicted > one.share_high for one in groups)
    under = sum(one.predicted < one.share_low for one in groups)
    if not too_many_miss(over + under, len(groups)):
        return "These chances agree with the answers, as far as these can tell."
    where = (
        f"in {over + under} of {len(groups)} groups the bar misses the diagonal, which is more "
        "than chance explains."
    )
    if over and under:
        return f"These chances were too high in places and too low in others: {where} {elsewhere}"
    return f"These chances were too {'high' if over else 'low'}: {where} {elsewhere}"
