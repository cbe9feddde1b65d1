"""What was found, at what price, and what the next round may bring."""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from sqlalchemy import select

from app.dashboards.moments import Moment, Plot
from app.engine.forecast import Forecast
from app.engine.numerals import plural, spaced
from app.engine.remaining import (
    Statement,
    calibrated_sum,
)
from app.reporting import list_examples
from app.tables import (
    Action,
    RoundImage,
)

LEAST_YES = 0.1  # of a round: less is no pace to tell a time by
LATEST_ROUNDS = 3
PAUSE_S = 300  # a longer silence is a pause, not work


@dataclass(frozen=True)
class Found:
    """What was found, and at what price."""

    positives: int
    positive_events: int | None  # None where each image stands by itself
    negatives: int
    unsure: int
    answered: int  # the examples among them
    examples: int  # images of the collection that opened the search, and still count
    seconds: float
    per_hundred: float | None  # answers but examples, of events where there are any
    by_chance: Statement | None  # positives per 100 random answers
    forecast: Forecast | None  # of yes in the next round
    next_count: int
    seconds_per_round: float | None
    seconds_to_next: float | None  # until another yes, at the pace of now
    plot: Plot


def tell_found(moment: Moment) -> Found:
    """What have I found?"""
    tally = Counter(
        value for image_id, value in moment.values.items() if image_id not in moment.removed
    )
    answered = tally.total()
    seconds = _count_seconds(moment)
    by_chance = None
    # What the search was opened with is no yield of its.
    examples = {one.image_id for one in list_examples(moment.session, moment.search)}
    standing = _find_standing(moment)
    confirmed = _find_standing(moment, "yes")
    asked_yes = _count(moment, confirmed - examples)
    asked = _count(moment, standing - examples)
    if moment.calibration is not None:
        left = calibrated_sum(moment.left_scores, moment.calibration, rng=moment.rng())
        # Drawn from where the search looks: what was found elsewhere is no part of it.
        kept = standing if moment.pool_ids is None else standing & set(moment.pool_ids.tolist())
        count = moment.unit_count if moment.kept_units is None else len(moment.kept_units)
        opened_with = _count(moment, kept & examples)
        by_chance = _to_rate(left, _count(moment, kept & confirmed - examples), count - opened_with)
    next_scores = moment.session.scalars(
        select(RoundImage.score).where(RoundImage.round_id == moment.made.id)
    ).all()
    forecast = moment.forecast(np.array(next_scores)) if next_scores else None
    expected = 0.0 if forecast is None else forecast.value
    pace = seconds / moment.after if moment.after else None
    return Found(
        positives=tally["yes"],
        positive_events=None if moment.grouped is None else _count(moment, confirmed),
        negatives=tally["no"],
        unsure=tally["unsure"],
        answered=answered,
        examples=len(standing & examples),
        seconds=seconds,
        per_hundred=100 * asked_yes / asked if asked else None,
        by_chance=by_chance,
        forecast=forecast,
        next_count=len(next_scores),
        seconds_per_round=pace,
        seconds_to_next=pace / expected if pace and expected >= LEAST_YES else None,
        plot=_plot_yield(moment, by_chance),
    )


def _find_standing(moment: Moment, *values: str) -> set[int]:
    """Images with an answer, or with one of these, that were not removed."""
    return {
        image_id
        for image_id, value in moment.values.items()
        if image_id not in moment.removed and (not values or value in values)
    }


def _count(moment: Moment, image_ids: set[int]) -> int:
    """How many events they are of, where there are any: an answer is for an event."""
    if moment.grouped is None:
        return len(image_ids)
    return len(np.unique(moment.grouped.numbers_of(sorted(image_ids))))


def _count_seconds(moment: Moment) -> float:
    """Time between one action and the next.

    Pauses are left out, and what went before asking for other images: whoever does that has been
    reading the dashboard.
    """
    query = (
        select(Action.at, Action.kind)
        .where(Action.search_id == moment.search.id)
        .order_by(Action.id)
    )
    if not moment.is_now:
        query = query.where(Action.at <= moment.made.proposed_at)
    steps = [
        (later.at - one.at).total_seconds()
        for one, later in pairwise(moment.session.execute(query).all())
        if later.kind != "detour"
    ]
    return float(sum(step for step in steps if step <= PAUSE_S))


def _to_rate(left: Statement, found: int, image_count: int) -> Statement:
    """Positives per 100 images drawn at random, from how many are left."""
    share = 100 / max(image_count, 1)
    return Statement(
        left.name,
        left.title,
        left.kind,
        left.quantity,
        share * (found + left.value),
        share * (found + left.low),
        share * (found + left.high),
        left.level,
        left.assumption,
        left.cost,
    )


def _plot_yield(moment: Moment, by_chance: Statement | None) -> Plot:
    tallies: dict[int, Counter[str]] = {
        made.number: Counter() for made in moment.rounds[: moment.after]
    }
    for one in moment.showings:
        if one.image_id in moment.removed:
            continue
        tallies[one.number][moment.values.get(one.image_id, "open")] += 1
    rows: list[list[float | int | str | None]] = [
        [number, tally["yes"], tally["no"], tally["unsure"], tally["open"]]
        for number, tally in tallies.items()
    ]
    latest = list(tallies.values())[-LATEST_ROUNDS:]
    recent = sum(tally["yes"] for tally in latest)
    asked = sum(tally.total() for tally in latest)
    rounds = "round" if len(latest) == 1 else plural(len(latest), "round")
    sentence = (
        f"Of the {plural(asked, 'image')} in the last {rounds}, {spaced(recent)} "
        f"{'was a' if recent == 1 else 'were'} yes.{_compare_with_chance(by_chance, asked)}"
        if rows
        else "No round has been submitted yet."
    )
    return Plot(
        "yield",
        "bars",
        "Answers in each round",
        sentence,
        ["Round", "Yes", "No", "Unsure", "Left open"],
        rows,
        {},
    )


def _compare_with_chance(by_chance: Statement | None, asked: int) -> str:
    """What as many random images would have brought."""
    if by_chance is None:
        return ""
    brought = by_chance.value * asked / 100
    about = f"about {spaced(brought)}" if brought >= 1.5 else f"about {brought:.1f}"
    return f" As many images drawn at random would have brought {about}, by estimate."
