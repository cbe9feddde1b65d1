"""How varied the positives are, over the rounds too, and where the gaps are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.dashboards.moments import MOST_LIKELY, Moment, Plot, rounded
from app.engine.coverage import CoverageEstimate
from app.engine.looks import FEWEST, find_gaps, lay_out, sort_looks
from app.engine.numerals import plural, spaced
from app.engine.strategies.round_state import smallest

Integers = NDArray[np.int64]

MOST_HISTORY = 5  # rounds at which coverage is told
MOST_ON_MAP = 200  # likely images
MOST_MISSED = 60  # images on the map that lie just beyond the boundary
GAPS, GAP_IMAGES = 6, 4


@dataclass(frozen=True)
class Variety:
    """How varied the positives are."""

    coverage: CoverageEstimate | None
    modes: list["Mode"]


@dataclass(frozen=True)
class Mode:
    """One look of the target: an image that stands for it, and how many are like it."""

    image_id: int
    confirmed: int
    predicted: int


def tell_variety(moment: Moment) -> Variety:
    """How varied is it? Coverage now, and the looks that were found or are likely."""
    return Variety(moment.coverage, _list_modes(moment))


def tell_history(moment: Moment) -> Plot | None:
    """Coverage after some rounds, evenly spread, the moment's own last."""
    afters = sorted({round(n) for n in np.linspace(0, moment.after, MOST_HISTORY)})
    moments = [moment.look_back(after) for after in afters[:-1]] + [moment]
    _score_together([one for one in moments if one.made.index_id == moment.made.index_id])
    told: list[list[float | int | str | None]] = []
    for one in moments:
        coverage = one.coverage
        if coverage is not None:
            told.append([one.after, *rounded(coverage.coverage, coverage.low, coverage.high)])
    if len(told) < 2:
        return None
    return Plot(
        "coverage",
        "interval",
        "Coverage after each round",
        "How much of the looks that the target is likely to have resembles a find, as far as the "
        "search could tell after each round; it falls where a new look comes into sight.",
        ["Round", "Coverage", "Low", "High"],
        told,
        {},
    )


@dataclass(frozen=True)
class GapCard:
    """Likely images that nothing confirmed resembles."""

    anchor_image_id: int
    image_ids: list[int]
    count: int
    expected: float


@dataclass(frozen=True)
class Looks:
    """Where the gaps are: as cards, and on a map."""

    gaps: list[GapCard]
    map: Plot | None


def tell_looks(moment: Moment) -> Looks:
    """Where are the gaps?"""
    positives = moment.examples.positives
    if moment.head is None or not len(positives):
        return Looks([], None)
    likely, missed = moment.list_likely(MOST_LIKELY), _list_missed(moment)
    vectors, image_ids = moment.index.vectors, moment.index.image_ids
    gaps = find_gaps(
        vectors[positives],
        vectors[likely],
        moment.chances(moment.all_scores[likely]),
        limit=GAPS,
    )
    cards = [
        GapCard(
            int(image_ids[likely[gap.medoid]]),
            image_ids[likely[gap.members[:GAP_IMAGES]]].tolist(),
            len(gap.members),
            gap.expected,
        )
        for gap in gaps
    ]
    return Looks(cards, _plot_map(moment, positives, likely[:MOST_ON_MAP], missed))


def _score_together(moments: list[Moment]) -> None:
    """Score every row by the heads of all these moments of one index, read once for all.

    Of an index that does not rank all each moment scores by itself, from smaller files.
    """
    if not moments[0].index.ranks_all:
        return
    heads = [(one, one.head) for one in moments if one.head is not None]
    if heads:
        weights = np.stack([head.weights for _, head in heads])
        scores = weights @ moments[0].index.vectors.T
        for (one, head), own in zip(heads, scores, strict=True):
            one.__dict__["all_scores"] = own + np.float32(head.bias)


def _list_missed(moment: Moment) -> Integers:
    """Unanswered rows just below the boundary, the nearest first."""
    below = np.flatnonzero(moment.scores <= 0)
    return moment.unanswered[below[smallest(-moment.scores[below], MOST_MISSED)]]


def _list_modes(moment: Moment) -> list[Mode]:
    """The looks among positives and likely images, the largest first."""
    positives = moment.examples.positives
    if moment.head is None or not len(positives):
        return []
    likely = moment.list_likely(MOST_ON_MAP)
    rows = np.concatenate([positives, likely])
    vectors = moment.index.vectors[rows]
    labels = sort_looks(vectors)
    is_confirmed = np.arange(len(rows)) < len(positives)
    modes = []
    for label in np.unique(labels):
        own = labels == label
        confirmed = int((own & is_confirmed).sum())
        # What stands for a look is a positive wherever there is one.
        among = np.flatnonzero(own & is_confirmed if confirmed else own)
        middle = vectors[own].mean(axis=0)
        medoid = among[int(np.argmax(vectors[among] @ middle))]
        modes.append(
            Mode(
                int(moment.index.image_ids[rows[medoid]]),
                confirmed,
                int(own.sum()) - confirmed,
            )
        )
    return sorted(modes, key=lambda one: -(one.confirmed + one.predicted))


def _plot_map(
    moment: Moment, positives: Integers, likely: Integers, missed: Integers
) -> Plot | None:
    if len(positives) < FEWEST:
        return None
    vectors = moment.index.vectors
    others = np.concatenate([likely, missed])
    laid_out = lay_out(vectors[positives], vectors[others])
    if laid_out is None:
        return None
    found_at, others_at = laid_out
    groups = ["Found"] * len(positives) + ["Likely"] * len(likely) + ["Near miss"] * len(missed)
    places = np.concatenate([found_at, others_at])
    image_ids = moment.index.image_ids[np.concatenate([positives, others])].tolist()
    # There may be more than the map can hold, and the results count them.
    by_event = ""
    if moment.event_rows is not None:
        by_event = " One image stands for each event; the results count every image."
    likely_ones = "likely" if len(likely) < MOST_ON_MAP else "of the likeliest"
    return Plot(
        "map",
        "map",
        "A map of its looks",
        f"{plural(len(positives), 'image')} found, {spaced(len(likely))} {likely_ones} without an "
        f"answer, and {spaced(len(missed))} just beyond the boundary; images that look alike lie "
        "close together. Likely images far from every find are looks you have not confirmed."
        + by_event,
        ["Image", "Group", "Across", "Up"],
        [
            [image_id, group, *rounded(*place)]
            for image_id, group, place in zip(image_ids, groups, places.tolist(), strict=True)
        ],
        {},
    )
