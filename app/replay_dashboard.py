"""What the dashboard would have said of a replayed run, after any of its rounds, beside the truth.

A run's images and answers are kept, so its heads are fitted again without choosing anything
(`engine.replay.retrace`), and each figure comes from the function that the dashboard of a live
search uses. What follows for all rounds (a course) is kept beside the run, since it never changes.
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.dashboards.moments import MOST_LIKELY, VERSIONS, Plot
from app.dashboards.variety import GAP_IMAGES, GAPS
from app.database import is_among
from app.engine.answers import Answers, Value
from app.engine.coverage import CoverageEstimate, choose_candidates, estimate_coverage
from app.engine.forecast import LEVEL as FORECAST_LEVEL
from app.engine.forecast import forecast_yes
from app.engine.head import probabilities
from app.engine.index import VectorIndex
from app.engine.looks import find_gaps
from app.engine.numerals import plural
from app.engine.remaining import (
    LEVEL,
    Statement,
    calibrated_sum,
    certify_left,
    chapman,
    estimate_left,
    plan_absence,
    plan_estimate,
    recent_yield,
    run_of_negatives,
    yield_curve,
)
from app.engine.replay import ReplayRound, ask_oracle, retrace
from app.engine.stop_replay import RunMoment, describe_moment, replay_stops
from app.engine.stopping import LOOK_SIZE, SAMPLE_SIZE, STOP_RULES, get_stop_rule, plan_look
from app.engine.strategies.round_state import smallest
from app.errors import NotFound
from app.evaluation import (
    KEPT,
    LETTERS,
    MANIFEST,
    TRUTH,
    PlayedRun,
    ReplaySettings,
    RoundRow,
    hash_engine,
    read_json,
    read_run,
    read_stop,
    run_file,
    split_pool,
    write_atomically,
)
from app.filtering import take_filter
from app.indexing import OpenIndexes
from app.oracle import list_kept_rows
from app.replays import find_replay_folder
from app.settings import Settings
from app.tables import ImageIndex, OracleLabel, Replay

COURSES = "courses"
COURSE_VERSION = 2  # counted up with whatever here or in `dashboards` changes what a course says
CONTROL_SIZE = 300  # images of a random sample, as the dashboard offers it
COVERAGE_LEVEL = 0.9  # of the interval of `estimate_coverage`
LOOK_STREAM = 4  # random numbers of what is tried here, apart from those of the run
NUMBERS = {letter: value for value, letter in LETTERS.items()}

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class KeptRun:
    """One run of a replay that has ended, as its folder holds it."""

    folder: Path
    manifest: dict[str, Any]
    run: PlayedRun
    settings: ReplaySettings

    @property
    def rounds(self) -> list[RoundRow]:
        """What was true after each round."""
        return self.run.rows


@dataclass(frozen=True, eq=False)
class TracedRun:
    """A run with its vectors and heads at hand."""

    kept: KeptRun
    index: VectorIndex
    target_rows: Integers  # that could be found
    pool_rows: Integers
    played: list[ReplayRound]

    @cached_property
    def is_target(self) -> Booleans:
        """Of every row, whether it shows the target."""
        shown = np.zeros(self.index.count, dtype=bool)
        shown[self.target_rows] = True
        return shown

    def stand_at(self, number: int) -> RunMoment:
        """The run after that many rounds."""
        settings, seed = self.kept.settings, self.kept.run.seed
        return describe_moment(
            self.index, self.played, number, settings.open_with, self.pool_rows, seed
        )

    def count_left(self, answers: Answers) -> int:
        """How many of the target's images that could be found have no yes."""
        return int((~np.isin(self.target_rows, answers.positives)).sum())

    def ask(self, rows: Integers, number: int) -> NDArray[np.int8]:
        """The oracle's answers to images beyond the rounds."""
        settings = self.kept.settings
        return ask_oracle(
            self.is_target[rows],
            error=settings.oracle_error,
            unsure=settings.oracle_unsure,
            seed=self.kept.run.seed,
            round_number=settings.rounds + number,  # other mistakes than in the rounds
        )


@dataclass(frozen=True)
class CourseRow:
    """After one round: what would have been said, with the interval, and what was true.

    NaN where nothing could be said, or where no next round came.
    """

    round: int
    found: int
    recall_said: float
    recall_low: float
    recall_high: float
    recall: float
    coverage_said: float
    coverage_low: float
    coverage_high: float
    coverage: float
    left_said: float
    left_low: float
    left_high: float
    left: int
    next_said: float
    next_low: float
    next_high: float
    next_came: float


@dataclass(frozen=True)
class RuleCourse:
    """What became of a stop rule in a run: see `engine.stop_replay.StopOutcome`.

    `reached_round`: the first round after which its goal was truly reached, by the rounds alone.
    """

    name: str
    title: str
    kind: str
    goal: str
    stopped: bool
    advised: bool
    round: int
    answers: int
    extra: int
    recall: float
    coverage: float
    reached: bool
    reached_round: int | None


@dataclass(frozen=True)
class Course:
    """A whole run: its rounds, and its stop rules."""

    rows: list[CourseRow]
    rules: list[RuleCourse]


@dataclass(frozen=True)
class RuleVerdict:
    """What a stop rule says at a moment, and whether that is right."""

    course: RuleCourse
    says: str
    grade: str  # right, late, or wrong
    verdict: str


@dataclass(frozen=True)
class Compared:
    """What one method says at a moment, and what is true.

    `verdict`: inside, where the interval holds the truth, or the interval is too high or too low;
    empty where there is no interval.
    """

    title: str
    kind: str
    quantity: str  # as in Statement, or "coverage", or "yes" in the next round
    value: float
    low: float
    high: float
    level: float
    truth: float
    verdict: str
    note: str


@dataclass(frozen=True)
class GapTruth:
    """A gap, and how much of it truly belongs to the target."""

    image_ids: list[int]
    are_target: list[bool]
    count: int
    expected: float
    true_count: int


@dataclass(frozen=True)
class ToldMoment:
    """A run after one of its rounds."""

    compared: list[Compared]
    tried: list[Compared]  # samples and a look, had they been asked for at this moment
    gaps: list[GapTruth]
    left: int
    left_in_gaps: int
    has_head: bool


def find_kept_run(
    settings: Settings,
    replay: Replay,
    *,
    target: str | None,
    strategy: str | None,
    seed: int | None,
) -> KeptRun:
    """A run of a replay that has ended; what is not named is the first."""
    if replay.state != "done":
        raise NotFound("This replay has not ended, so there is no run to look into yet.")
    folder = find_replay_folder(settings, replay.id)
    manifest = read_json(folder / MANIFEST)
    plan = ReplaySettings(**manifest["settings"])
    key = (
        plan.targets[0] if target is None else target,
        plan.strategies[0] if strategy is None else strategy,
        seed or 0,
    )
    if key[0] not in plan.targets or key[1] not in plan.strategies or key[2] >= plan.seeds:
        raise NotFound("This replay has no such run. Choose another.")
    return KeptRun(folder, manifest, read_run(run_file(folder, *key)), plan)


def trace_run(
    session: Session,
    replay: Replay,
    kept: KeptRun,
    *,
    indexes: OpenIndexes,
    rounds: int | None = None,
) -> TracedRun:
    """A run on its own index, with the heads of its rounds (the first `rounds`, None for all)."""
    index = _open_index_of(session, replay, kept.manifest, indexes)
    run = kept.run
    every_row = np.sort(index.rows_of(_list_target_ids(session, kept, index)))
    kept_rows = _list_kept_rows(session, replay, kept, index)
    left_rows = list_kept_rows(session, replay.collection_id, index.image_ids, None)
    for rows in (kept_rows, left_rows):
        if rows is not None:
            every_row = every_row[np.isin(every_row, rows)]
    seen = [*run.opening, *(image_id for ids in run.shown for image_id in ids)]
    known = index.image_ids if left_rows is None else index.image_ids[left_rows]
    is_changed = len(every_row) != kept.manifest["target_sizes"][run.target]
    if is_changed or not np.isin(seen, known).all():
        raise NotFound(
            f"The known labels of “{run.target}” have changed since this replay, or what it may "
            "look at has, so its truth is not known any more. Its report still stands; play it "
            "again for this page."
        )
    pool, _ = split_pool(index.count, every_row, kept.settings.holdout, run.seed, None, kept_rows)
    shown = run.shown[:rounds]
    played = retrace(
        index,
        opening_rows=index.rows_of(run.opening),
        shown=[index.rows_of(ids) for ids in shown],
        values=[np.array([NUMBERS[one] for one in text], np.int8) for text in run.values[:rounds]],
        strategy=run.strategy,
        seed=run.seed,
        pool_rows=pool if kept.settings.holdout or kept_rows is not None else None,
    )
    return TracedRun(kept, index, every_row[np.isin(every_row, pool)], pool, played)


def find_course(kept: KeptRun) -> Course | None:
    """The course of a run, if it was told before by the code of today."""
    path = _course_file(kept)
    if not path.exists():
        return None
    told = read_json(path)
    if (told["engine_sha256"], told.get("version")) != (hash_engine(), COURSE_VERSION):
        return None
    return Course(
        [CourseRow(**row) for row in told["rows"]], [RuleCourse(**rule) for rule in told["rules"]]
    )


def tell_course(traced: TracedRun) -> Course:
    """What would have been said after every round, and by every stop rule; kept for next time."""
    count = len(traced.kept.rounds)
    moments = [traced.stand_at(number) for number in range(1, count + 1)]
    course = Course([_tell_row(traced, moment) for moment in moments], _tell_rules(traced))
    path = _course_file(traced.kept)
    path.parent.mkdir(exist_ok=True)
    kept = {"engine_sha256": hash_engine(), "version": COURSE_VERSION, **asdict(course)}
    with suppress(FileNotFoundError):  # another request has just put the same there
        write_atomically(path, json.dumps(kept))
    return course


def judge_rules(course: Course, number: int) -> list[RuleVerdict]:
    """What every stop rule says after that many rounds, and whether it is right."""
    return [_judge_rule(rule, number) for rule in course.rules]


def plot_course(course: Course, target_count: int) -> list[Plot]:
    """The estimates over the rounds, each beside the truth."""
    rows = course.rows
    return [
        _plot(
            "recall",
            "Share found",
            "Found, as a share of found and still left by the sum of chances.",
            [(r.round, r.recall_said, r.recall_low, r.recall_high, r.recall) for r in rows],
            level=LEVEL,
            is_share=True,
        ),
        _plot(
            "coverage",
            "Coverage",
            "How much of the target's looks the positives span, as estimated and by the labels.",
            [(r.round, r.coverage_said, r.coverage_low, r.coverage_high, r.coverage) for r in rows],
            level=COVERAGE_LEVEL,
            is_share=True,
        ),
        _plot(
            "left",
            "How many are left",
            f"Of {plural(target_count, 'image')} of the target, by the sum of chances.",
            [(r.round, r.left_said, r.left_low, r.left_high, r.left) for r in rows],
            level=LEVEL,
        ),
        _plot(
            "next",
            "Yes in the next round",
            "The forecast for the next round beside what it brought.",
            [(r.round, r.next_said, r.next_low, r.next_high, r.next_came) for r in rows],
            level=FORECAST_LEVEL,
        ),
    ]


def tell_run_moment(traced: TracedRun, number: int) -> ToldMoment:
    """What each method says after that many rounds; what a sample or a look would; the gaps."""
    moment = traced.stand_at(number)
    gaps, in_gaps = _tell_gaps(traced, moment)
    left = traced.count_left(moment.answers)
    return ToldMoment(
        _compare_standing(traced, moment),
        _compare_tried(traced, moment),
        gaps,
        left,
        in_gaps,
        moment.scores is not None,
    )


# --- One round ----------------------------------------------------------------------------------


def _tell_row(traced: TracedRun, moment: RunMoment) -> CourseRow:
    nan = float("nan")
    true_row = traced.kept.rounds[moment.number - 1]
    found, left = len(moment.answers.positives), traced.count_left(moment.answers)
    sum_left, coverage = _sum_left(moment), _estimate_coverage(moment)
    said = (nan, nan, nan) if sum_left is None else (sum_left.value, sum_left.low, sum_left.high)
    shares = [found / (found + number) for number in said]
    return CourseRow(
        moment.number,
        found,
        shares[0],
        shares[2],
        shares[1],
        true_row.recall,
        *(
            (nan, nan, nan)
            if coverage is None
            else (coverage.coverage, coverage.low, coverage.high)
        ),
        true_row.coverage,
        *said,
        left,
        *_forecast(traced, moment),
        _count_next(traced, moment),
    )


def _sum_left(moment: RunMoment) -> Statement | None:
    if moment.scores is None or moment.calibration is None or not len(moment.unanswered):
        return None
    scores = moment.scores[moment.unanswered]
    return calibrated_sum(scores, moment.calibration, rng=np.random.default_rng(moment.seed))


def _estimate_coverage(moment: RunMoment) -> CoverageEstimate | None:
    positives = moment.answers.positives
    if moment.scores is None or moment.calibration is None or not len(positives):
        return None
    scores = moment.scores[moment.unanswered]
    chosen = choose_candidates(scores)
    rng = np.random.default_rng(moment.seed)
    return estimate_coverage(
        moment.index.vectors[positives],
        moment.index.vectors[moment.unanswered[chosen.places]],
        moment.calibration.draws(scores[chosen.places], VERSIONS, rng=rng),
        weights=chosen.weights,
        rng=rng,
    )


def _forecast(traced: TracedRun, moment: RunMoment) -> tuple[float, float, float]:
    """Yes of the next round as expected, with its interval; NaN without one or nothing to say."""
    following = traced.played[moment.number]
    judged = [one for one in traced.played[: moment.number] if one.proposal.head is not None]
    if not len(following.values) or not judged or moment.scores is None:
        return float("nan"), float("nan"), float("nan")
    sizes = [len(one.values) for one in judged]
    forecast = forecast_yes(
        moment.scores[following.proposal.rows],
        shown_scores=np.concatenate([one.proposal.scores for one in judged]),
        values=np.concatenate([one.values for one in judged]),
        rounds_ago=np.repeat(np.arange(len(judged), 0, -1), sizes),
    )
    if forecast is None:
        return float("nan"), float("nan"), float("nan")
    return forecast.value, forecast.low, forecast.high


def _count_next(traced: TracedRun, moment: RunMoment) -> float:
    """Yes of the next round as it came; NaN without one."""
    values = traced.played[moment.number].values
    return float((values == Value.YES).sum()) if len(values) else float("nan")


def _compare_standing(traced: TracedRun, moment: RunMoment) -> list[Compared]:
    left = traced.count_left(moment.answers)
    came = _count_next(traced, moment)
    following = len(traced.played[moment.number].values)
    next_share = came / following if following else float("nan")
    compared = []
    covered = _estimate_coverage(moment)
    if covered is not None:
        told = (covered.coverage, covered.low, covered.high)
        truth = traced.kept.rounds[moment.number - 1].coverage
        compared.append(
            Compared(
                "Coverage",
                "estimate",
                "coverage",
                *told,
                COVERAGE_LEVEL,
                truth,
                _place(truth, covered.low, covered.high),
                "",
            )
        )
    compared += [
        _compare(one, next_share)
        for one in (run_of_negatives(moment.values), recent_yield(moment.values))
    ]
    curve = yield_curve(moment.values, len(moment.unanswered))
    if curve.value < len(moment.unanswered):  # finds have begun to thin out
        compared.append(_compare(curve, left))
    sum_left = _sum_left(moment)
    if sum_left is not None:
        compared.append(_compare(sum_left, left))
    expected, low, high = _forecast(traced, moment)
    if not np.isnan(expected):
        compared.append(
            Compared(
                "Yes in the next round",
                "estimate",
                "yes",
                expected,
                low,
                high,
                FORECAST_LEVEL,
                came,
                _place(came, low, high),
                f"Of {following} images.",
            )
        )
    return compared


def _compare_tried(traced: TracedRun, moment: RunMoment) -> list[Compared]:
    """A sample by score, one at random and a second look, each taken now and by itself."""
    unanswered = moment.unanswered
    if moment.scores is None or not len(unanswered):
        return []
    rng = np.random.default_rng([moment.seed, moment.number, LOOK_STREAM])
    compared = []

    def take(rows: Integers) -> tuple[Answers, int]:
        values = traced.ask(rows, moment.number)
        answers = Answers(
            np.concatenate([moment.answers.rows, rows]),
            np.concatenate([moment.answers.values, values]),
        )
        return answers, int((values == Value.YES).sum())

    by_score = plan_estimate(moment.scores[unanswered], unanswered, SAMPLE_SIZE, rng=rng)
    at_random = plan_absence(unanswered, CONTROL_SIZE, rng=rng)
    for plan in (by_score, at_random):
        answers, new = take(plan.rows)
        still_open = len(unanswered) - len(plan.rows)
        if plan is by_score:
            statement = estimate_left(
                plan, answers, asked=len(plan.rows), unanswered_count=still_open, rng=rng
            )
        else:
            statement = certify_left(
                plan, answers, asked=len(plan.rows), unanswered_count=still_open
            )
        note = f"{len(plan.rows)} answers, {new} of them yes."
        compared.append(_compare(statement, traced.count_left(answers), note))
    look = plan_look(moment.index, moment.answers, unanswered, LOOK_SIZE, rng=rng)
    answers, new = take(look.rows)
    statement = chapman(
        len(moment.answers.positives), look.seen_again, new, len(unanswered) - len(look.rows)
    )
    note = f"{len(look.rows)} answers, {new} of them yes."
    compared.append(_compare(statement, traced.count_left(answers), note))
    return compared


def _compare(one: Statement, truth: float, note: str = "") -> Compared:
    is_silent = np.isnan(truth) or (one.quantity == "share" and np.isnan(one.value))
    verdict = "" if is_silent else _place(truth, one.low, one.high)
    return Compared(
        one.title,
        one.kind,
        one.quantity,
        one.value,
        one.low,
        one.high,
        one.level,
        truth,
        verdict,
        note,
    )


def _place(truth: float, low: float, high: float) -> str:
    """Where an interval lies, seen from the truth; rounding is no error."""
    if truth < low - 1e-9:
        return "too high"
    return "too low" if truth > high + 1e-9 else "inside"


def _tell_gaps(traced: TracedRun, moment: RunMoment) -> tuple[list[GapTruth], int]:
    """The gaps, and how many images of the target they hold together."""
    positives = moment.answers.positives
    if moment.scores is None or not len(positives):
        return [], 0
    scores = moment.scores[moment.unanswered]
    best = smallest(-scores, MOST_LIKELY)
    best = best[scores[best] > 0]
    likely = moment.unanswered[best]
    vectors, image_ids = moment.index.vectors, moment.index.image_ids
    chances = _chances(moment, scores[best])
    told, total = [], 0
    for gap in find_gaps(vectors[positives], vectors[likely], chances, limit=GAPS):
        members = likely[gap.members]
        true_count = int(traced.is_target[members].sum())
        total += true_count
        first = members[:GAP_IMAGES]
        told.append(
            GapTruth(
                image_ids[first].tolist(),
                traced.is_target[first].tolist(),
                len(members),
                gap.expected,
                true_count,
            )
        )
    return told, total


# --- Stop rules ---------------------------------------------------------------------------------


def _tell_rules(traced: TracedRun) -> list[RuleCourse]:
    kept = traced.kept
    goals = {name: read_stop(name)[1] for name in STOP_RULES}
    outcomes = replay_stops(
        traced.index,
        traced.target_rows,
        traced.played,
        goals,
        rounds=len(kept.rounds),
        opening_count=kept.settings.open_with,
        pool_rows=traced.pool_rows,
        ask_oracle=traced.ask,
        seed=kept.run.seed,
    )
    told = []
    for name, outcome in outcomes.items():
        rule, goal = get_stop_rule(name), goals[name]
        wanted = float(getattr(goal, rule.aim))
        words = {
            "recall": f"{100 * wanted:g} % of what is there",
            "coverage": f"{100 * wanted:g} % of its looks",
            "positives": f"{wanted:g} images",
        }
        reached = [
            row.round for row in kept.rounds if float(getattr(row, rule.aim)) >= wanted - 1e-9
        ]
        told.append(
            RuleCourse(
                name,
                rule.title,
                rule.kind,
                words[rule.aim],
                outcome.stopped,
                outcome.advised,
                outcome.round,
                outcome.answers,
                outcome.extra,
                outcome.recall,
                outcome.coverage,
                outcome.reached,
                reached[0] if reached else None,
            )
        )
    return told


def _judge_rule(rule: RuleCourse, number: int) -> RuleVerdict:
    if rule.stopped and rule.round <= number:
        since = f"since round {rule.round}"
        says = f"may stop, {since}" if rule.advised else f"met {since}, but not to be relied on"
        if rule.reached:
            return RuleVerdict(rule, says, "right", "right: the goal was reached")
        found = f"recall {100 * rule.recall:.0f} %, coverage {100 * rule.coverage:.0f} %"
        return RuleVerdict(rule, says, "wrong", f"too early: {found} at that moment")
    if rule.reached_round is not None and rule.reached_round <= number:
        verdict = f"late: the goal was reached in round {rule.reached_round}"
        return RuleVerdict(rule, "go on", "late", verdict)
    return RuleVerdict(rule, "go on", "right", "right: the goal was not reached")


# --- Helpers ------------------------------------------------------------------------------------


def _list_target_ids(session: Session, kept: KeptRun, index: VectorIndex) -> list[int]:
    """The target's images as they were known when the run was played."""
    target = kept.run.target
    if (kept.folder / TRUTH).exists():
        truth: dict[str, list[int]] = read_json(kept.folder / TRUTH)
        if target in truth:
            return truth[target]
    # A replay of before that was kept goes by the labels of now, as long as they fit.
    labelled = select(OracleLabel.image_id).where(
        OracleLabel.label == target, is_among(OracleLabel.image_id, index.image_ids.tolist())
    )
    return list(session.scalars(labelled))


def _list_kept_rows(
    session: Session, replay: Replay, kept: KeptRun, index: VectorIndex
) -> Integers | None:
    """The rows that were looked at when the run was played; None for all."""
    if "kept_sha256" in kept.manifest:
        is_all = kept.manifest["kept_sha256"] is None
        return None if is_all else index.rows_of(np.array(read_json(kept.folder / KEPT)))
    # A replay of before that was kept goes by the tables and clocks of now.
    chosen = take_filter(kept.settings.where)
    return list_kept_rows(session, replay.collection_id, index.image_ids, chosen)


def _open_index_of(
    session: Session,
    replay: Replay,
    manifest: dict[str, Any],
    indexes: OpenIndexes,
) -> VectorIndex:
    """The index that a replay was played on, wherever the collection has moved since."""
    ready = select(ImageIndex).filter_by(collection_id=replay.collection_id, state="ready")
    for row in session.scalars(ready.order_by(ImageIndex.id.desc())):
        index = indexes.get(row)
        if index.manifest.vectors_sha256 == manifest["index"]["vectors_sha256"]:
            return index
    raise NotFound(
        "The index that this replay was played on is not there any more. Its report still stands; "
        "play it again for this page."
    )


def _chances(moment: RunMoment, scores: NDArray[np.float32]) -> NDArray[np.floating]:
    if moment.calibration is None:
        return probabilities(scores)
    return moment.calibration.chances(scores)


def _plot(
    name: str,
    title: str,
    meaning: str,
    told: list[tuple[float, ...]],
    *,
    level: float | None = None,
    is_share: bool = False,
) -> Plot:
    digits = 4 if is_share else 1
    rows: list[list[float | int | str | None]] = [
        [int(number), *(None if np.isnan(one) else round(float(one), digits) for one in figures)]
        for number, *figures in told
    ]
    return Plot(
        name,
        "against",
        title,
        f"{meaning} {_judge_plot(told, level, is_share)}",
        ["Round", "Said", "Low", "High", "True"],
        rows,
        {"share": float(is_share), "level": level or 0.0},
    )


def _judge_plot(told: list[tuple[float, ...]], level: float | None, is_share: bool) -> str:
    figures = np.array(told, np.float64)[:, 1:]
    said, low, high, truth = figures[~np.isnan(figures[:, 0]) & ~np.isnan(figures[:, 3])].T
    if not len(said):
        return "Nothing could be said yet."
    off = float((said - truth).mean())
    by = plural(round(100 * abs(off)), "point") if is_share else f"{abs(off):.1f}"
    mean = f"On average it was {by} too {'high' if off > 0 else 'low'}."
    if level is None:
        return mean
    inside = int(((truth >= low - 1e-9) & (truth <= high + 1e-9)).sum())
    return (
        f"The truth was inside the {100 * level:.0f} % interval after {inside} of "
        f"{len(said)} rounds. {mean}"
    )


def _course_file(kept: KeptRun) -> Path:
    run = kept.run
    return kept.folder / COURSES / run_file(kept.folder, run.target, run.strategy, run.seed).name
