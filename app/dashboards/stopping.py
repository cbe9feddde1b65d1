"""How many are left, and whether to stop: statements, samples, second looks, goals."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from app.answers import VALUES
from app.dashboards.moments import Moment
from app.engine.coverage import CoverageEstimate
from app.engine.index import VectorIndex
from app.engine.numerals import plural, spaced
from app.engine.remaining import (
    SamplePlan,
    Statement,
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
from app.errors import RefusedGoal
from app.indexes import list_indexes
from app.premises import read_plan, recall_plan
from app.searching import LARGEST_DETOURS, SMALLEST_DETOUR
from app.tables import (
    ChosenGoal,
    Detour,
    ImageIndex,
    Person,
    Round,
    Search,
)

Integers = NDArray[np.int64]

MOST_POSITIVES = 1_000_000  # that a goal may ask for
ABSENCE_SIZE = 300  # images of a random sample, as the page offers it
BESIDE_TITLE = "Another opening: images beside single finds"
EXPLORATION_TITLE = "Exploration: images far from everything seen"
DETOUR_TITLES = {
    "gap": "A gap of the dashboard",
    "estimate": "A sample by score",
    "absence": "A sample at random",
    "second-look": "A second look",
    "other-embedder": "A look by another embedder",
}


@dataclass(frozen=True)
class Left:
    """How many are left, by every method that has something to say."""

    statements: list[Statement]
    verdict: "Verdict | None"  # by the one of them to trust most
    taken: list["TakenDetour"]
    gains: list["Gain"]
    unanswered_count: int
    smallest: int  # images that can be asked for
    absence_size: int  # to offer
    largest_absence: int
    estimate_size: int
    look_size: int
    has_head: bool
    other_embedders: list[str]
    counts_events: bool  # and not images


@dataclass(frozen=True)
class Verdict:
    """One answer to how many are left, and what share of all was found by it, 0..1."""

    statement: Statement
    found: int
    share: float  # NaN where the statement has bounds alone
    share_low: float
    share_high: float

    @property
    def by_lot(self) -> bool:
        """Whether it is from a sample, not from what the search knows."""
        return self.statement.cost > 0


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


@dataclass(frozen=True)
class Gain:
    """What one way of taking a second look has brought, over all second looks."""

    title: str
    shown: int
    positives: int


def tell_left(moment: Moment) -> Left:
    """How many are left?"""
    own = moment.session.get_one(ImageIndex, moment.made.index_id)
    standing = build_standing(moment)
    statements = [recent_yield(standing.values), run_of_negatives(standing.values)]
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
    told = statements if moment.after else []
    return Left(
        told,
        judge_left(_leave_out_begun(told, standing), standing.found),
        list_detours(moment),
        list_gains(moment),
        standing.unanswered_count,
        SMALLEST_DETOUR,
        min(ABSENCE_SIZE, standing.unanswered_count),
        min(LARGEST_DETOURS["absence"], standing.unanswered_count),
        min(SAMPLE_SIZE, standing.unanswered_count),
        min(LOOK_SIZE, standing.unanswered_count),
        moment.head is not None,
        [
            one.embedder
            for one in list_indexes(moment.session, moment.search.collection_id)
            if one.embedder != own.embedder
        ],
        moment.event_rows is not None,
    )


def _leave_out_begun(statements: list[Statement], standing: Standing) -> list[Statement]:
    """Without what a sample says whose images were not all shown: its bounds are far away."""
    samples = {"score-sample": standing.sample, "random-sample": standing.control}
    begun = {
        name
        for name, taken in samples.items()
        if taken is not None and taken.asked < len(taken.plan.rows)
    }
    return [one for one in statements if one.name not in begun]


def judge_left(statements: list[Statement], found: int) -> Verdict | None:
    """By a sample, drawn at random rather than by score; else by the sum of chances, if any."""
    by_name = {one.name: one for one in statements if one.cost or one.name == "calibrated-sum"}
    for name in ("random-sample", "score-sample", "calibrated-sum"):
        if name in by_name and found:
            one = by_name[name]
            share, low, high = (found / (found + left) for left in (one.value, one.high, one.low))
            return Verdict(one, found, share, low, high)
    return None


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
    coverage = moment.coverage if goal.coverage is not None else None
    # A share is of the images that the filter keeps; a training set takes finds from anywhere.
    standing = build_standing(moment, coverage, everywhere=goal.recall is None)
    aim = get_aim(chosen)
    advice = [
        RuleAdvice(name, rule, advise(name, standing, goal), name == chosen.rule)
        for name, rule in STOP_RULES.items()
        if rule.aim == aim
    ]
    advice.sort(key=lambda one: not one.is_chosen)
    before = sum(made.proposed_at <= chosen.chosen_at for made in moment.rounds)
    return Stopping(chosen, describe_goal(chosen), advice, len(goals) - 1, max(before - 1, 0))


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
        raise RefusedGoal("rule", "That rule does not serve this goal. Choose another.")
    if not 0.5 <= confidence <= 0.999:
        raise RefusedGoal("confidence", "How sure to be must be from 50 to 99.9 %.")
    if aim == "positives":
        if not 1 <= amount <= MOST_POSITIVES:
            most = spaced(MOST_POSITIVES)
            raise RefusedGoal("amount", f"The number of images must be from 1 to {most}.")
    elif not 0.01 <= amount <= 0.999:
        raise RefusedGoal("amount", "The share must be from 1 to 99.9 %.")
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
    return f"{plural(goal.positives or 0, 'image')} for a training set"


def build_standing(
    moment: Moment, coverage: CoverageEstimate | None = None, *, everywhere: bool = False
) -> Standing:
    """What a stop rule may know: of what the search's filter keeps, or of images everywhere."""
    kept = moment.values if everywhere else moment.kept_values
    own = [one for one in moment.last_showings if one.detour_id is None and one.image_id in kept]
    answers = moment.counted if everywhere else moment.keep(moment.counted)
    return Standing(
        answers=answers,
        values=np.array([VALUES[kept[one.image_id]] for one in own], np.int8),
        rounds=np.array([one.number for one in own], np.int64),
        image_count=moment.unit_count - len(moment.counted.rows) + len(answers.rows),
        scores=moment.left_scores,
        calibration=moment.calibration,
        coverage=coverage,
        sample=_find_sample(moment, "estimate", kept),
        control=_find_sample(moment, "absence", kept),
        looks=tuple(_list_looks(moment, kept, everywhere=everywhere)),
        seed=moment.search.seed,
    )


def list_detours(moment: Moment) -> list[TakenDetour]:
    """Every sample and second look of the search until then, in order."""
    taken = []
    for detour in moment.detours:
        if detour.kind == "gap":
            continue
        shown = [one.image_id for one in moment.showings if one.detour_id == detour.id]
        taken.append(
            TakenDetour(
                detour.kind,
                DETOUR_TITLES[detour.kind],
                detour.image_count,
                len(shown),
                sum(moment.values.get(image_id) == "yes" for image_id in shown),
                moment.made.detour_id == detour.id,
                detour.round_number,
            )
        )
    return taken


def list_gains(moment: Moment) -> list[Gain]:
    """New positives of second looks: by another embedder, another opening, exploration."""
    shown: dict[str, list[int]] = {}
    for detour in moment.detours:
        own = [one.image_id for one in moment.showings if one.detour_id == detour.id]
        if not own or detour.kind not in ("second-look", "other-embedder"):
            continue
        if detour.kind == "other-embedder":
            other = moment.session.get_one(ImageIndex, detour.other_index_id)
            shown.setdefault(f"Another embedder: {other.embedder}", []).extend(own)
            continue
        plan = recall_plan(moment.session, moment.search, detour, moment.indexes)
        beside = set(plan.image_ids[: plan.beside_count].tolist())
        for image_id in own:
            title = BESIDE_TITLE if image_id in beside else EXPLORATION_TITLE
            shown.setdefault(title, []).append(image_id)
    return [
        Gain(title, len(own), sum(moment.values.get(image_id) == "yes" for image_id in own))
        for title, own in shown.items()
    ]


def _find_sample(moment: Moment, kind: str, kept: Mapping[int, str]) -> TakenSample | None:
    """The latest sample of a kind of which at least one round was submitted."""
    for detour in reversed(moment.detours):
        shown = [one.image_id for one in moment.showings if one.detour_id == detour.id]
        if detour.kind != kind or not shown:
            continue
        # What was drawn under another grouping says nothing of the events of now.
        from_round = moment.session.get_one(Round, detour.from_round_id)
        if from_round.grouping_id != moment.made.grouping_id:
            continue
        planned, index = read_plan(moment.session, moment.search, detour, moment.indexes)
        if planned.sample is None:
            continue
        plan = _keep_looked_at(_move_plan(planned.sample, index, moment.index), moment)
        if not len(plan.rows):  # all were drawn where a filter looks no more
            continue
        was_shown = np.isin(moment.index.image_ids[plan.rows], shown)
        before = {
            one.image_id
            for one in moment.showings
            if one.detour_id is None and one.number < detour.round_number
        }
        asked = int(np.flatnonzero(was_shown)[-1]) + 1 if was_shown.any() else 0
        if moment.event_rows is not None:
            plan = _name_events(plan, moment.event_rows)
        # What was answered elsewhere is not shown again. It counts once it completes the sample:
        # before, where to end would depend on what was found.
        answered = moment.answers.rows if moment.event_rows is None else moment.counted.rows
        if np.isin(plan.rows[asked:], answered).all():
            asked = len(plan.rows)
        # Also those that were taken back: each was a chance to be wrong.
        tries = select(func.count(Detour.id)).where(
            Detour.search_id == moment.search.id, Detour.kind == kind, Detour.id <= detour.id
        )
        return TakenSample(
            plan,
            asked,
            len(before & kept.keys()),
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


def _keep_looked_at(plan: SamplePlan, moment: Moment) -> SamplePlan:
    """The plan of what a filter keeps: of each stratum drawn by lot as before."""
    if moment.kept_units is None:
        return plan
    events = moment.event_rows
    in_frame, in_sample = (
        np.isin(rows if events is None else events[rows], moment.kept_units)
        for rows in (plan.frame, plan.rows)
    )
    return SamplePlan(
        plan.frame[in_frame], plan.strata[in_frame], plan.rows[in_sample], plan.chances[in_sample]
    )


def _name_events(plan: SamplePlan, events: Integers) -> SamplePlan:
    """The plan with each image called by its event, as `Moment.counted` calls answers."""
    order = np.argsort(events[plan.frame])
    frame = events[plan.frame][order]
    return SamplePlan(frame, plan.strata[order], events[plan.rows], plan.chances)


def _list_looks(moment: Moment, kept: Mapping[int, str], *, everywhere: bool) -> Iterable[Look]:
    """The second looks that are done."""
    for detour in moment.detours:
        own = [made for made in moment.rounds[: moment.after] if made.detour_id == detour.id]
        if detour.kind != "second-look" or not own or moment.made.detour_id == detour.id:
            continue
        following = next(made for made in moment.rounds if made.previous_id == own[-1].id)
        shown = [one.image_id for one in moment.showings if one.detour_id == detour.id]
        planned = recall_plan(moment.session, moment.search, detour, moment.indexes)
        # Images removed since then ask for no answer.
        said = {
            i: moment.values.get(i) for i in planned.image_ids.tolist() if i not in moment.removed
        }
        # A plan of fewer images than were asked for had no others left. What was found elsewhere
        # before the look came to it is no find of the look, and none of its noes either.
        is_large = detour.size >= LOOK_SIZE or len(planned.image_ids) < detour.size
        is_whole = is_large and all(
            value == "no" or (value == "yes" and image_id in shown)
            for image_id, value in said.items()
        )
        then = moment.count(moment.values_through(following.answers_through_id))
        found = (then if everywhere else moment.keep(then)).positives
        before = {
            one.image_id
            for one in moment.showings
            if one.detour_id is None and one.number < detour.round_number
        }
        yield Look(
            planned.seen_again,
            sum(moment.values.get(image_id) == "yes" for image_id in shown),
            len(found),
            len(before & kept.keys()),
            is_whole,
        )
