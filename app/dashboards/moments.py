"""A search as it stood after a round, or now: what the dashboard is computed from.

Everything follows from what is stored, so an old search shows the same figures on every opening,
and after any earlier round (`open_moment`). Nothing here changes anything.

Where images belong to events, what is told of the unanswered is told of events: one image stands
for each, as in a round. Statements of how many are left then count events throughout.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.answers import VALUES
from app.engine.answers import Answers
from app.engine.coverage import CoverageEstimate, choose_candidates, estimate_coverage
from app.engine.events import answer_by_event, show_one_each, teach_one_each
from app.engine.forecast import Forecast, forecast_yes
from app.engine.head import Head, probabilities
from app.engine.index import VectorIndex
from app.engine.remaining import (
    Calibration,
    calibrate,
)
from app.engine.strategies.round_state import smallest
from app.errors import NotFound
from app.events import Events, read_events, read_pool
from app.indexing import OpenIndexes
from app.premises import close_outside, list_left_out, read_head
from app.seats import list_standing, list_tips
from app.sensitive import COARSEST, Sight
from app.tables import (
    Answer,
    Detour,
    Image,
    ImageIndex,
    Round,
    RoundImage,
    Search,
    Seat,
)

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]

MOST_LIKELY = 600  # likely images: in which gaps are looked for, and whose places are told
VERSIONS = 50  # of the calibration, for an interval


@dataclass(frozen=True)
class Showing:
    """One image in a submitted round."""

    number: int
    image_id: int
    score: float
    has_head: bool
    detour_id: int | None


@dataclass(frozen=True, eq=False)
class Moment:
    """A search as it stood when `after` rounds were submitted, or now.

    `made` is the round that came next: its head and its index are those that count.
    """

    session: Session
    search: Search
    indexes: OpenIndexes
    rounds: list[Round]  # the submitted ones of everybody, and last the newest not submitted
    after: int
    is_now: bool
    steps: list[tuple[int, int, str]]  # answer id, image id, value; in order of time
    sight: Sight  # what whoever looks is shown of places

    def look_back(self, after: int) -> "Moment":
        """The same search after fewer rounds."""
        then = replace(self, after=after, is_now=False)
        number = then.made.number
        then.__dict__["showings"] = [one for one in self.showings if one.number < number]
        return then

    @property
    def made(self) -> Round:
        """The round whose head and index count."""
        return self.rounds[self.after]

    @property
    def rounds_count(self) -> int:
        """Rounds submitted until now."""
        return len(self.rounds) - 1

    @cached_property
    def index(self) -> VectorIndex:
        """The index that the head looks at."""
        return self.indexes.get(self.session.get_one(ImageIndex, self.made.index_id))

    @cached_property
    def head(self) -> Head | None:
        """The head that chose the next round."""
        return read_head(self.made)

    @cached_property
    def values(self) -> dict[int, str]:
        """The answer of each image, in the order of first answers."""
        return self.values_through(None if self.is_now else self.made.answers_through_id)

    def values_through(self, through_id: int | None) -> dict[int, str]:
        """The answers that stood after a step: up to and with that answer."""
        values: dict[int, str] = {}
        for step_id, image_id, value in self.steps:
            if through_id is not None and step_id > through_id:
                break
            if value == "cleared":
                values.pop(image_id, None)
            else:
                values[image_id] = value
        return values

    def answers_in(self, index: VectorIndex, values: dict[int, str]) -> Answers:
        """Answers as rows of an index, in the order they were given; others are left out."""
        image_ids = np.fromiter(values, np.int64, count=len(values))
        numbers = np.array([VALUES[value] for value in values.values()], dtype=np.int8)
        is_held = index.holds(image_ids)
        return Answers(index.rows_of(image_ids[is_held]), numbers[is_held])

    @cached_property
    def answers(self) -> Answers:
        """The answers as rows of the index; what the search does not look at counts as unsure."""
        return close_outside(self.index, self._know(self.values), self.pool_ids)

    @cached_property
    def grouped(self) -> Events | None:
        """The events that the round went by; None where each image stands by itself."""
        return read_events(self.session, self.made.grouping_id)

    @cached_property
    def event_rows(self) -> Integers | None:
        """The event of every row, as app/engine/events.py has them."""
        return None if self.grouped is None else self.grouped.rows_in(self.index)

    @cached_property
    def examples(self) -> Answers:
        """The answers, of an event one of each kind: what looks and coverage are told from."""
        return (
            self.answers
            if self.event_rows is None
            else teach_one_each(self.answers, self.event_rows)
        )

    @cached_property
    def counted(self) -> Answers:
        """The answers to be counted: those of events, where there are any, as one each."""
        return self.count(self.values)

    def count(self, values: dict[int, str]) -> Answers:
        """Answers as `counted` has those of now."""
        known = self._know(values)
        return known if self.event_rows is None else answer_by_event(known, self.event_rows)

    def _know(self, values: dict[int, str]) -> Answers:
        """The answers, and unsure for removed images."""
        return self.answers_in(self.index, values | dict.fromkeys(self.left_out, "unsure"))

    @cached_property
    def pool_ids(self) -> Integers | None:
        """The images that the search's filter kept; None where it looks at all."""
        return read_pool(self.session, self.made)

    @cached_property
    def image_count(self) -> int:
        """Images that the search looks at."""
        if self.pool_ids is None:
            return self.index.count
        return int(np.isin(self.index.image_ids, self.pool_ids).sum())

    @cached_property
    def kept_units(self) -> Integers | None:
        """What a filter keeps, called as `counted` calls answers; None where it looks at all."""
        if self.pool_ids is None:
            return None
        rows = np.flatnonzero(np.isin(self.index.image_ids, self.pool_ids))
        return rows if self.event_rows is None else np.unique(self.event_rows[rows])

    def keep(self, counted: Answers) -> Answers:
        """Of answers as `counted` has them those to what a filter keeps."""
        if self.kept_units is None:
            return counted
        is_kept = np.isin(counted.rows, self.kept_units)
        return Answers(counted.rows[is_kept], counted.values[is_kept])

    @cached_property
    def kept_values(self) -> dict[int, str]:
        """Of `values` those of images that a filter keeps."""
        if self.pool_ids is None:
            return self.values
        kept = set(self.pool_ids.tolist())
        return {image_id: value for image_id, value in self.values.items() if image_id in kept}

    @cached_property
    def left_out(self) -> list[int]:
        """Removed images that the index still holds: no picture shows them."""
        if self.is_now:
            return list_left_out(self.session, self.search.collection_id, self.index)
        return self.made.left_out_ids or []

    @cached_property
    def removed(self) -> set[int]:
        """The images that were removed from the collection: they no longer count as found."""
        query = select(Image.id).where(
            Image.collection_id == self.search.collection_id, Image.removed_at.is_not(None)
        )
        return set(self.session.scalars(query))

    @cached_property
    def unanswered(self) -> Integers:
        """Rows without an answer, ascending; of an event the one of the highest score."""
        is_open = np.ones(self.index.count, bool)
        is_open[self.answers.rows] = False
        rows = np.flatnonzero(is_open)
        if self.event_rows is None:
            return rows
        keys = np.zeros(len(rows), np.float32) if self.head is None else self.all_scores[rows]
        return show_one_each(rows, keys, self.event_rows)

    @cached_property
    def left(self) -> Integers:
        """The unanswered rows that may be another find: of an event found in part none is."""
        if self.event_rows is None:
            return self.unanswered
        is_found = np.isin(self.event_rows[self.unanswered], self.counted.positives)
        return self.unanswered[~is_found]

    @cached_property
    def left_scores(self) -> NDArray[np.float32]:
        """The scores of these; empty without a head."""
        return self.all_scores[self.left] if self.head is not None else self.all_scores

    @cached_property
    def unit_count(self) -> int:
        """What statements are about: the events where there are any, else the images."""
        if self.event_rows is None:
            return len(self.counted.rows) + len(self.unanswered)
        return len(np.union1d(self.counted.rows, self.event_rows[self.unanswered]))

    @cached_property
    def all_scores(self) -> NDArray[np.float32]:
        """The score of every row; empty without a head."""
        if self.head is None:
            return np.empty(0, np.float32)
        return self.index.scores(self.head.weights, self.head.bias)

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """The scores of the unanswered rows; empty without a head."""
        return self.all_scores[self.unanswered] if self.head is not None else self.all_scores

    @cached_property
    def showings(self) -> list[Showing]:
        """Every image of the submitted rounds, in order."""
        submitted = {made.id: made for made in self.rounds[: self.after]}
        places = self.session.execute(
            select(RoundImage.round_id, RoundImage.image_id, RoundImage.score)
            .where(RoundImage.round_id.in_(submitted))
            .order_by(RoundImage.round_id, RoundImage.position)
        ).all()
        return [
            Showing(made.number, image_id, score, made.head_bias is not None, made.detour_id)
            for round_id, image_id, score in places
            for made in (submitted[round_id],)
        ]

    @cached_property
    def calibration(self) -> Calibration | None:
        """What a score is worth in this search."""
        if self.head is None:
            return None
        shown = [one for one in self.last_showings if one.has_head and one.image_id in self.values]
        return calibrate(
            np.array([one.score for one in shown]),
            np.array([VALUES[self.values[one.image_id]] for one in shown], np.int8),
            self.scores,
        )

    def forecast(self, next_scores: Floats) -> Forecast | None:
        """How many yes the next round will bring, its images having these scores."""
        if self.head is None:  # they are likenesses to the opening
            return None
        shown = [one for one in self.last_showings if one.has_head and one.image_id in self.values]
        return forecast_yes(
            next_scores,
            shown_scores=np.array([one.score for one in shown]),
            values=np.array([VALUES[self.values[one.image_id]] for one in shown], np.int8),
            rounds_ago=np.array([self.made.number - one.number for one in shown]),
        )

    @cached_property
    def last_showings(self) -> list[Showing]:
        """Each image where it was shown last: there it was answered, if it was left open before."""
        last = {one.image_id: one for one in self.showings}
        return [one for one in self.showings if last[one.image_id] is one]

    @cached_property
    def detours(self) -> list[Detour]:
        """The detours of its rounds, in order."""
        ids = [made.detour_id for made in self.rounds[: self.after + 1] if made.detour_id]
        query = select(Detour).where(Detour.id.in_(ids)).order_by(Detour.id)
        return list(self.session.scalars(query))

    @cached_property
    def coverage(self) -> CoverageEstimate | None:
        """How much of what the target is likely to be the positives span."""
        positives = self.examples.positives
        if self.calibration is None or not len(positives):
            return None
        chosen = choose_candidates(self.scores)
        rng = self.rng()
        return estimate_coverage(
            self.index.vectors[positives],
            self.index.vectors[self.unanswered[chosen.places]],
            self.calibration.draws(self.scores[chosen.places], VERSIONS, rng=rng),
            weights=chosen.weights,
            rng=rng,
        )

    def list_likely(self, limit: int) -> Integers:
        """Unanswered rows that the head takes for positives, best first."""
        best = smallest(-self.scores, limit)
        return self.unanswered[best[self.scores[best] > 0]]

    def rng(self) -> np.random.Generator:
        """For intervals: the same ones on every opening."""
        return np.random.default_rng(self.search.seed)

    def chances(self, scores: Floats) -> Floats:
        """The chance of yes at scores, calibrated if it can be."""
        if self.calibration is None:
            return probabilities(np.asarray(scores, np.float32))
        return self.calibration.chances(scores)


def open_moment(
    session: Session,
    search: Search,
    indexes: OpenIndexes,
    after: int | None,
    *,
    sight: Sight = COARSEST,
) -> Moment:
    """The search now (`after` None), or as it stood when that many rounds were submitted."""
    standing = list_standing(search.id)
    open_ones = list_tips(search.id).where(Seat.round_id != search.current_round_id)
    rounds = list(
        session.scalars(
            select(Round)
            .where(Round.id.in_(select(standing.c.id)), Round.id.not_in(open_ones))
            .order_by(Round.id)
        )
    )
    if not rounds or (after is not None and not 0 <= after < len(rounds)):
        raise NotFound("This search has no such round.")
    steps = session.execute(
        select(Answer.id, Answer.image_id, Answer.value)
        .where(Answer.search_id == search.id)
        .order_by(Answer.id)
    ).all()
    return Moment(
        session,
        search,
        indexes,
        rounds,
        len(rounds) - 1 if after is None else after,
        after is None,
        [(step_id, image_id, value) for step_id, image_id, value in steps],
        sight,
    )


@dataclass(frozen=True)
class Plot:
    """What a chart shows, as the table behind it: the same numbers, the same order."""

    name: str
    kind: str  # how static/dashboard.js draws it
    title: str
    sentence: str
    columns: list[str]
    rows: list[list[float | int | str | None]]
    marks: dict[str, float]


def rounded(*numbers: float) -> list[float]:
    return [round(float(number), 4) for number in numbers]
