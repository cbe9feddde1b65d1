"""What the dashboard of a search shows: found, how varied, where the gaps are, how many are left.

Everything follows from what is stored, so an old search shows the same figures on every opening,
and after any earlier round (`open_moment`). Nothing here changes anything but the goal.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from functools import cached_property
from importlib.metadata import version
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, joinedload

from app.engine.answers import Answers, Value
from app.engine.coverage import CoverageEstimate, choose_candidates, estimate_coverage
from app.engine.head import Head, probabilities
from app.engine.index import VectorIndex
from app.engine.looks import FEWEST, find_gaps, lay_out, sort_looks
from app.engine.remaining import (
    Calibration,
    SamplePlan,
    Statement,
    calibrate,
    calibrated_sum,
    certify_left,
    chapman,
    estimate_left,
    recent_yield,
    run_of_negatives,
    yield_curve,
)
from app.engine.stopping import (
    LOOK_SIZE,
    SAMPLE_SIZE,
    STOP_RULES,
    Advice,
    Goal,
    Look,
    Standing,
    StopRule,
    TakenSample,
    advise,
)
from app.engine.strategies.round_state import smallest
from app.errors import BadInput, NotFound
from app.indexes import list_indexes
from app.indexing import OpenIndexes
from app.reporting import list_examples, plural
from app.searching import (
    VALUES,
    list_chain,
    list_left_out,
    read_head,
    read_plan,
)
from app.tables import (
    Action,
    Answer,
    ChosenGoal,
    Detour,
    Image,
    ImageIndex,
    Person,
    Round,
    RoundImage,
    Search,
)

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]

PAUSE_S = 300  # a longer silence is a pause, not work
MOST_HISTORY = 5  # rounds at which coverage is told
MOST_LIKELY = 600  # likely images in which gaps are looked for
MOST_ON_MAP = 200  # likely images
MOST_MISSED = 60  # images on the map that lie just beyond the boundary
GAPS, GAP_IMAGES = 6, 4
SURPRISES = 8
BINS = 24
VERSIONS = 50  # of the calibration, for an interval
DEFAULT_RULES = {"recall": "random-sample", "positives": "enough-positives"}
DETOUR_TITLES = {
    "gap": "A gap of the dashboard",
    "estimate": "A sample by score",
    "absence": "A sample at random",
    "second-look": "A second look",
}


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
    rounds: list[Round]  # the whole chain, the current one last
    after: int
    is_now: bool
    events: list[tuple[int, int, str]]  # answer id, image id, value; in order of time

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
        """The answers that stood after an event."""
        values: dict[int, str] = {}
        for event_id, image_id, value in self.events:
            if through_id is not None and event_id > through_id:
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
        is_held = np.isin(image_ids, index.image_ids)
        return Answers(index.rows_of(image_ids[is_held]), numbers[is_held])

    @cached_property
    def answers(self) -> Answers:
        """The answers as rows of the index."""
        return self.answers_in(self.index, self.values | dict.fromkeys(self.left_out, "unsure"))

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
        """Rows without an answer, ascending."""
        is_open = np.ones(self.index.count, bool)
        is_open[self.answers.rows] = False
        return np.flatnonzero(is_open)

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
        shown = [
            one for one in _last_showings(self) if one.has_head and one.image_id in self.values
        ]
        return calibrate(
            np.array([one.score for one in shown]),
            np.array([VALUES[self.values[one.image_id]] for one in shown], np.int8),
            self.scores,
        )

    def rng(self) -> np.random.Generator:
        """For intervals: the same ones on every opening."""
        return np.random.default_rng(self.search.seed)

    def chances(self, scores: Floats) -> Floats:
        """The chance of yes at scores, calibrated if it can be."""
        if self.calibration is None:
            return probabilities(np.asarray(scores, np.float32))
        return self.calibration.chances(scores)


def open_moment(
    session: Session, search: Search, indexes: OpenIndexes, after: int | None
) -> Moment:
    """The search now (`after` None), or as it stood when that many rounds were submitted."""
    chain = list_chain(search.current_round_id)
    rounds = list(
        session.scalars(
            select(Round).where(Round.id.in_(select(chain.c.id))).order_by(Round.number)
        )
    )
    if not rounds or (after is not None and not 0 <= after < len(rounds)):
        raise NotFound("This search has no such round.")
    events = session.execute(
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
        [(event_id, image_id, value) for event_id, image_id, value in events],
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


@dataclass(frozen=True)
class Found:
    """What was found, and at what price."""

    positives: int
    negatives: int
    unsure: int
    answered: int
    image_count: int
    seconds: float
    per_hundred: float | None
    by_chance: Statement | None  # positives per 100 random answers
    forecast_yes: float | None  # in the next round
    next_count: int
    seconds_per_round: float | None
    plot: Plot


def tell_found(moment: Moment) -> Found:
    """What have I found?"""
    tally = Counter(
        value for image_id, value in moment.values.items() if image_id not in moment.removed
    )
    answered = tally.total()
    seconds = _count_seconds(moment)
    image_count = moment.index.count
    by_chance = None
    if moment.calibration is not None:
        left = calibrated_sum(moment.scores, moment.calibration, rng=moment.rng())
        by_chance = _to_rate(left, tally["yes"], image_count)
    next_scores = moment.session.scalars(
        select(RoundImage.score).where(RoundImage.round_id == moment.made.id)
    ).all()
    knows = moment.calibration is not None and next_scores
    return Found(
        positives=tally["yes"],
        negatives=tally["no"],
        unsure=tally["unsure"],
        answered=answered,
        image_count=image_count,
        seconds=seconds,
        per_hundred=100 * tally["yes"] / answered if answered else None,
        by_chance=by_chance,
        forecast_yes=float(moment.chances(np.array(next_scores)).sum()) if knows else None,
        next_count=len(next_scores),
        seconds_per_round=seconds / moment.after if moment.after else None,
        plot=_plot_yield(moment),
    )


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
    return Variety(_estimate_coverage(moment), _list_modes(moment))


def tell_history(moment: Moment) -> Plot | None:
    """Coverage after some rounds, evenly spread, the moment's own last."""
    afters = sorted({round(n) for n in np.linspace(0, moment.after, MOST_HISTORY)})
    moments = [moment.look_back(after) for after in afters[:-1]] + [moment]
    _score_together([one for one in moments if one.made.index_id == moment.made.index_id])
    told: list[list[float | int | str | None]] = []
    for one in moments:
        coverage = _estimate_coverage(one)
        if coverage is not None:
            told.append([one.after, *_rounded(coverage.coverage, coverage.low, coverage.high)])
    if len(told) < 2:
        return None
    return Plot(
        "coverage",
        "interval",
        "Coverage after each round",
        "How much of the looks that the target is likely to have resembles a find, as far as "
        "each round's head could tell; it falls where a new look comes into sight.",
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
    positives = moment.answers.positives
    if moment.head is None or not len(positives):
        return Looks([], None)
    likely, missed = _list_likely(moment, MOST_LIKELY)
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


@dataclass(frozen=True)
class Left:
    """How many are left, by every method that has something to say."""

    statements: list[Statement]
    taken: list["TakenDetour"]
    estimate_size: int
    look_size: int
    has_head: bool
    other_embedders: list[str]


@dataclass(frozen=True)
class TakenDetour:
    """A sample or a second look, and how far it has come."""

    kind: str
    title: str
    size: int
    shown: int
    positives: int
    is_running: bool
    first_round: int


def tell_left(moment: Moment) -> Left:
    """How many are left?"""
    standing = build_standing(moment)
    statements = [run_of_negatives(standing.values), recent_yield(standing.values)]
    curve = yield_curve(standing.values, standing.unanswered_count)
    if curve.value < standing.unanswered_count:  # finds have begun to thin out
        statements.append(curve)
    if standing.calibration is not None:
        statements.append(calibrated_sum(standing.scores, standing.calibration, rng=moment.rng()))
    if standing.looks:
        look = standing.looks[-1]
        statements.append(
            chapman(look.found - look.new, look.seen_again, look.new, standing.unanswered_count)
        )
    if standing.sample is not None:
        statements.append(
            estimate_left(
                standing.sample.plan,
                standing.answers,
                asked=standing.sample.asked,
                unanswered_count=standing.unanswered_count,
                rng=moment.rng(),
            )
        )
    if standing.control is not None:
        statements.append(
            certify_left(
                standing.control.plan,
                standing.answers,
                asked=standing.control.asked,
                unanswered_count=standing.unanswered_count,
            )
        )
    return Left(
        statements if moment.after else [],
        list_detours(moment),
        SAMPLE_SIZE,
        LOOK_SIZE,
        moment.head is not None,
        [
            one.embedder
            for one in list_indexes(moment.session, moment.search.collection_id)
            if one.embedder != moment.search.embedder
        ],
    )


@dataclass(frozen=True)
class RuleAdvice:
    """A stop rule and what it says now."""

    name: str
    rule: StopRule
    advice: Advice
    is_chosen: bool


@dataclass(frozen=True)
class Stopping:
    """May I stop? The goal and what every rule for it says; the chosen rule first."""

    chosen: ChosenGoal | None
    goal_sentence: str
    advice: list[RuleAdvice]
    goals_before: int  # chosen earlier and changed since
    chosen_after: int  # rounds


def tell_stopping(moment: Moment) -> Stopping:
    """May I stop?"""
    goals = list_goals(moment)
    if not goals:
        return Stopping(None, "", [], 0, 0)
    chosen = goals[-1]
    goal = Goal(chosen.recall, chosen.positives, chosen.coverage, chosen.confidence)
    coverage = _estimate_coverage(moment) if goal.coverage is not None else None
    standing = build_standing(moment, coverage)
    aim = get_aim(chosen)
    advice = [
        RuleAdvice(name, rule, advise(name, standing, goal), name == chosen.rule)
        for name, rule in STOP_RULES.items()
        if rule.aim == aim
    ]
    advice.sort(key=lambda one: not one.is_chosen)
    before = sum(made.proposed_at <= chosen.chosen_at for made in moment.rounds)
    return Stopping(chosen, describe_goal(chosen), advice, len(goals) - 1, max(before - 1, 0))


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


def choose_goal(
    session: Session,
    search: Search,
    *,
    person: Person,
    aim: str,
    amount: float,
    confidence: float,
    rule: str,
) -> ChosenGoal:
    """Set what the search is to reach and the rule it goes by; earlier goals stay on record.

    The goal that stands already, set again (a double click), stays as it is.
    """
    if rule not in STOP_RULES or STOP_RULES[rule].aim != aim:
        raise BadInput("That rule does not serve this goal. Choose another.")
    if not 0.5 <= confidence <= 0.999:
        raise BadInput("How sure to be must be from 50 to 99.9 %.")
    if aim == "positives":
        if not 1 <= amount <= 1_000_000:
            raise BadInput("The number of images must be from 1 to 1,000,000.")
    elif not 0.01 <= amount <= 0.999:
        raise BadInput("The share must be from 1 to 99.9 %.")
    goal = ChosenGoal(
        search_id=search.id,
        person_id=person.id,
        rule=rule,
        recall=amount if aim == "recall" else None,
        positives=round(amount) if aim == "positives" else None,
        coverage=amount if aim == "coverage" else None,
        confidence=confidence,
    )
    newest = session.scalar(
        select(ChosenGoal).filter_by(search_id=search.id).order_by(ChosenGoal.id.desc()).limit(1)
    )
    terms = ("rule", "recall", "positives", "coverage", "confidence")
    if newest and all(getattr(newest, term) == getattr(goal, term) for term in terms):
        return newest
    session.add(goal)
    session.flush()
    return goal


def list_rules() -> dict[str, StopRule]:
    """The stop rules by name."""
    return STOP_RULES


def list_goals(moment: Moment) -> list[ChosenGoal]:
    """The goals chosen until then, the newest last."""
    query = select(ChosenGoal).filter_by(search_id=moment.search.id).order_by(ChosenGoal.id)
    if not moment.is_now:
        query = query.where(ChosenGoal.chosen_at <= moment.made.proposed_at)
    return list(moment.session.scalars(query.options(joinedload(ChosenGoal.person))))


def get_aim(goal: ChosenGoal) -> str:
    """Which part of a goal is set: recall, positives or coverage."""
    return STOP_RULES[goal.rule].aim


def describe_goal(goal: ChosenGoal) -> str:
    """A goal as a sentence."""
    sure = f"{100 * goal.confidence:g} % sure"
    if goal.recall is not None:
        return f"{100 * goal.recall:g} % of what is there, {sure}"
    if goal.coverage is not None:
        return f"{100 * goal.coverage:g} % of the target's looks"
    return f"{goal.positives or 0:,} images for a training set"


def build_standing(moment: Moment, coverage: CoverageEstimate | None = None) -> Standing:
    """What a stop rule may know."""
    own = [
        one
        for one in _last_showings(moment)
        if one.detour_id is None and one.image_id in moment.values
    ]
    return Standing(
        answers=moment.answers,
        values=np.array([VALUES[moment.values[one.image_id]] for one in own], np.int8),
        rounds=np.array([one.number for one in own], np.int64),
        image_count=moment.index.count,
        scores=moment.scores,
        calibration=moment.calibration,
        coverage=coverage,
        sample=_find_sample(moment, "estimate"),
        control=_find_sample(moment, "absence"),
        looks=tuple(_list_looks(moment)),
        seed=moment.search.seed,
    )


def list_detours(moment: Moment) -> list[TakenDetour]:
    """Every sample and second look of the search until then, in order."""
    taken = []
    for detour in _list_detour_rows(moment):
        if detour.kind == "gap":
            continue
        shown = [one.image_id for one in moment.showings if one.detour_id == detour.id]
        taken.append(
            TakenDetour(
                detour.kind,
                DETOUR_TITLES[detour.kind],
                detour.size,
                len(shown),
                sum(moment.values.get(image_id) == "yes" for image_id in shown),
                moment.made.detour_id == detour.id,
                detour.round_number,
            )
        )
    return taken


@dataclass(frozen=True)
class Report:
    """What a methods section needs of a search."""

    facts: list[tuple[str, str]]
    found: Found
    left: Left
    stopping: Stopping
    variety: Variety


def describe_report(moment: Moment) -> Report:
    """Target, collection, embedder, strategies, answers, people, rule, estimates, versions."""
    session, search = moment.session, moment.search
    row = session.get_one(ImageIndex, moment.made.index_id)
    submitted = moment.rounds[: moment.after]
    strategies = Counter(made.strategy for made in submitted if made.detour_id is None)
    # Who gave each answer that stands; taken back and done again, it is still one answer.
    standing = select(Answer.action_id, Answer.value).where(Answer.search_id == search.id)
    if not moment.is_now:
        standing = standing.where(Answer.id <= moment.made.answers_through_id)
    last = (
        standing.order_by(Answer.image_id, Answer.id.desc())
        .ext(distinct_on(Answer.image_id))
        .subquery()
    )
    people = (
        select(Person.name, func.count())
        .join(Action, Action.person_id == Person.id)
        .join(last, last.c.action_id == Action.id)
        .where(last.c.value != "cleared")
        .group_by(Person.name)
        .order_by(Person.name)
    )
    examples = list_examples(session, search)
    words = [one.words for one in examples if one.words]
    photos = sum(one.photo_id is not None for one in examples)
    images = sum(one.image_id is not None for one in examples)
    opened = [plural(images, "image") + " of the collection"] * bool(images)
    opened += [plural(photos, "photo")] * bool(photos) + [f"the words “{one}”" for one in words]
    facts = [
        ("Target", search.target_name),
        ("Counts as yes", search.counts_as_yes or "not written down"),
        ("Collection", f"{search.collection.name}, {row.image_count:,} images"),
        ("Opened with", " and ".join(opened)),
        ("Images compared by", f"{row.embedder}, revision {row.revision}"),
        (
            "Images chosen by",
            ", ".join(f"{name} ({plural(count, 'round')})" for name, count in strategies.items())
            or "nothing yet",
        ),
        (
            "Rounds",
            f"{moment.after}, of them {sum(made.detour_id is not None for made in submitted)} "
            "asked for on the dashboard",
        ),
        ("Answers given by", _name_people(session.execute(people).all())),
        (
            "From … to",
            f"{search.made_at.astimezone(UTC):%Y-%m-%d %H:%M} … "
            f"{moment.made.proposed_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
        ),
        ("Seed", str(search.seed)),
        ("Rarefind", f"version {version('rarefind')}"),
    ]
    return Report(
        facts,
        tell_found(moment),
        tell_left(moment),
        tell_stopping(moment),
        tell_variety(moment),
    )


# --- Helpers ------------------------------------------------------------------------------------


def _name_people(counts: Sequence[Row[str, int]]) -> str:
    return ", ".join(f"{name} ({plural(count, 'answer')})" for name, count in counts) or "nobody"


def _count_seconds(moment: Moment) -> float:
    """Time between one action and the next, pauses left out."""
    query = select(Action.at).where(Action.search_id == moment.search.id).order_by(Action.id)
    if not moment.is_now:
        query = query.where(Action.at <= moment.made.proposed_at)
    times = list(moment.session.scalars(query))
    steps = [(later - one).total_seconds() for one, later in pairwise(times)]
    return sum(step for step in steps if step <= PAUSE_S)


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


def _plot_yield(moment: Moment) -> Plot:
    tallies: dict[int, Counter[str]] = {
        made.number: Counter() for made in moment.rounds[: moment.after]
    }
    for one in moment.showings:
        tallies[one.number][moment.values.get(one.image_id, "open")] += 1
    rows: list[list[float | int | str | None]] = [
        [number, tally["yes"], tally["no"], tally["unsure"], tally["open"]]
        for number, tally in tallies.items()
    ]
    recent = sum(tally["yes"] for tally in list(tallies.values())[-3:])
    asked = sum(tally.total() for tally in list(tallies.values())[-3:])
    sentence = (
        f"Of the {asked} images in the last {min(3, len(rows))} rounds, {recent} were yes."
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


def _score_together(moments: list[Moment]) -> None:
    """Score every row by the heads of all these moments of one index, read once for all."""
    heads = [(one, one.head) for one in moments if one.head is not None]
    if heads:
        weights = np.stack([head.weights for _, head in heads])
        scores = weights @ moments[0].index.vectors.T
        for (one, head), own in zip(heads, scores, strict=True):
            one.__dict__["all_scores"] = own + np.float32(head.bias)


def _estimate_coverage(moment: Moment) -> CoverageEstimate | None:
    positives = moment.answers.positives
    if moment.calibration is None or not len(positives):
        return None
    chosen = choose_candidates(moment.scores)
    rng = moment.rng()
    return estimate_coverage(
        moment.index.vectors[positives],
        moment.index.vectors[moment.unanswered[chosen.places]],
        moment.calibration.draws(moment.scores[chosen.places], VERSIONS, rng=rng),
        weights=chosen.weights,
        rng=rng,
    )


def _list_likely(moment: Moment, limit: int) -> tuple[Integers, Integers]:
    """Unanswered rows that the head takes for positives, best first; and the near misses."""
    scores = moment.scores
    best = smallest(-scores, limit)
    likely = moment.unanswered[best[scores[best] > 0]]
    below = np.flatnonzero(scores <= 0)
    missed = below[smallest(-scores[below], MOST_MISSED)]
    return likely, moment.unanswered[missed]


def _list_modes(moment: Moment) -> list[Mode]:
    """The looks among positives and likely images, the largest first."""
    positives = moment.answers.positives
    if moment.head is None or not len(positives):
        return []
    likely, _ = _list_likely(moment, MOST_ON_MAP)
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
    return Plot(
        "map",
        "map",
        "A map of its looks",
        f"{len(positives)} images found, {len(likely)} likely ones not seen yet and "
        f"{len(missed)} just beyond the boundary; images that look alike lie close together. "
        "Likely images far from every find are looks you have not confirmed.",
        ["Image", "Group", "Across", "Up"],
        [
            [image_id, group, *_rounded(*place)]
            for image_id, group, place in zip(image_ids, groups, places.tolist(), strict=True)
        ],
        {},
    )


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
            [*_rounded(start, stop), int(yes), int(no), int(rest)]
            for start, stop, yes, no, rest in zip(edges, edges[1:], *counts, strict=False)
        ],
        {"boundary": 0.0},
    )


def _last_showings(moment: Moment) -> list[Showing]:
    """Each image where it was shown last: there it was answered, if it was left open before."""
    last = {one.image_id: one for one in moment.showings}
    return [one for one in moment.showings if last[one.image_id] is one]


def _list_detour_rows(moment: Moment) -> list[Detour]:
    ids = [made.detour_id for made in moment.rounds[: moment.after + 1] if made.detour_id]
    query = select(Detour).where(Detour.id.in_(ids)).order_by(Detour.id)
    return list(moment.session.scalars(query))


def _find_sample(moment: Moment, kind: str) -> TakenSample | None:
    """The latest sample of a kind of which at least one round was submitted."""
    for detour in reversed(_list_detour_rows(moment)):
        shown = [one.image_id for one in moment.showings if one.detour_id == detour.id]
        if detour.kind != kind or not shown:
            continue
        planned, index = read_plan(moment.session, moment.search, detour, moment.indexes)
        if planned.sample is None:
            continue
        plan = _move_plan(planned.sample, index, moment.index)
        was_shown = np.isin(moment.index.image_ids[plan.rows], shown)
        before = {
            one.image_id
            for one in moment.showings
            if one.detour_id is None and one.number < detour.round_number
        }
        asked = int(np.flatnonzero(was_shown)[-1]) + 1 if was_shown.any() else 0
        # What was answered elsewhere is not shown again. It counts once it completes the sample:
        # before, where to end would depend on what was found.
        if np.isin(plan.rows[asked:], moment.answers.rows).all():
            asked = len(plan.rows)
        # Also those that were taken back: each was a chance to be wrong.
        tries = select(func.count(Detour.id)).where(
            Detour.search_id == moment.search.id, Detour.kind == kind, Detour.id <= detour.id
        )
        return TakenSample(
            plan,
            asked,
            len(before & moment.values.keys()),
            moment.session.scalar(tries) or 1,
        )
    return None


def _move_plan(plan: SamplePlan, before: VectorIndex, now: VectorIndex) -> SamplePlan:
    """The plan in the rows of the index of now; what that does not hold is left out."""
    if before is now:
        return plan

    def move(rows: Integers) -> tuple[NDArray[np.bool_], Integers]:
        image_ids = before.image_ids[rows]
        is_held = np.isin(image_ids, now.image_ids)
        return is_held, now.rows_of(image_ids[is_held])

    in_frame, frame = move(plan.frame)
    in_sample, rows = move(plan.rows)
    order = np.argsort(frame)
    return SamplePlan(frame[order], plan.strata[in_frame][order], rows, plan.chances[in_sample])


def _list_looks(moment: Moment) -> Iterable[Look]:
    """The second looks that are done."""
    for detour in _list_detour_rows(moment):
        own = [made for made in moment.rounds[: moment.after] if made.detour_id == detour.id]
        if detour.kind != "second-look" or not own or moment.made.detour_id == detour.id:
            continue
        following = next(made for made in moment.rounds if made.previous_id == own[-1].id)
        shown = [one.image_id for one in moment.showings if one.detour_id == detour.id]
        planned, index = read_plan(moment.session, moment.search, detour, moment.indexes)
        said = {i: moment.values.get(i) for i in index.image_ids[planned.rows].tolist()}
        # A plan of fewer images than were asked for had no others left. What was found elsewhere
        # before the look came to it is no find of the look, and none of its noes either.
        is_whole = (detour.size >= LOOK_SIZE or len(said) < detour.size) and all(
            value == "no" or (value == "yes" and image_id in shown)
            for image_id, value in said.items()
        )
        then = moment.values_through(following.answers_through_id)
        before = {
            one.image_id
            for one in moment.showings
            if one.detour_id is None and one.number < detour.round_number
        }
        yield Look(
            planned.seen_again,
            sum(moment.values.get(image_id) == "yes" for image_id in shown),
            sum(value == "yes" for value in then.values()),
            len(before & moment.values.keys()),
            is_whole,
        )


def _rounded(*numbers: float) -> list[float]:
    return [round(float(number), 4) for number in numbers]
