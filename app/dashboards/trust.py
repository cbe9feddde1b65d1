"""What the head makes of the images, and the answers it finds hard to believe."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.dashboards.moments import Moment, Plot, rounded
from app.engine.answers import Value

SURPRISES = 8
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
    surprises: list[Surprise]


def tell_head(moment: Moment) -> HeadView:
    """Can the search be trusted? Scores on both sides of the boundary, and likely slips."""
    if moment.head is None:
        return HeadView(None, [])
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
    return HeadView(_plot_scores(moment, scores), surprises)


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
