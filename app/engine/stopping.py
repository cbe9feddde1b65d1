"""When to stop: the register of stop rules, and what each still misses.

A rule sees a `Standing`, which holds only what a live search knows. It says whether it is met, and
if not what is missing and what that would cost. `advise` adds what no rule sees by itself: the head
may be blind to a whole look of the target, so a rule that reads the head's work needs a second look
first, and one that was wrong more often than the goal allows never advises to stop.
docs/algorithms.md, "When to stop".
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.engine import EngineError
from app.engine.answers import Answers, Value
from app.engine.coverage import CoverageEstimate
from app.engine.index import VectorIndex
from app.engine.numerals import plural, spaced
from app.engine.remaining import (
    Calibration,
    Kind,
    SamplePlan,
    Statement,
    calibrated_sum,
    certify_left,
    count_run,
    images_to_certify,
    negatives_to_stop,
    recall_p_value,
    yield_curve,
)

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]
Values = NDArray[np.int8]

Ask = Literal["answers", "second-look", "estimate", "absence", "nothing"]

LONG_RUN = 50  # answers of no, ASReview's and SAFE's usual number
SHORT_RUN = 20  # answers: of no before a random sample, or to follow up a second look
FEW_OF = (5, 200)  # yes of the latest answers, Yang, Lewis, Frieder 2021
SAFE_SHARE = 0.1  # of the collection
SAMPLE_SIZE = 150  # images of a score-stratified sample
SAMPLE_HOLDS = 100  # answers after which another sample may be taken
LOOK_SIZE = 40  # images of a second look within one index
EXPLORED = 2_000  # images among which an exploration looks for the farthest
CHUNK_ROWS = 16_384


class UnknownStopRule(EngineError):
    """A name that is not in the register."""


@dataclass(frozen=True)
class Goal:
    """What a search is to reach; a rule serves one of the three.

    `recall` 0..1 of the target's images found, to be sure of by `confidence` 0..1; or enough for a
    training set: `positives` images, or `coverage` 0..1 of the target's looks. None where not set.
    """

    recall: float | None = None
    positives: int | None = None
    coverage: float | None = None
    confidence: float = 0.95


@dataclass(frozen=True, eq=False)
class TakenSample:
    """A sample in the works: its plan, how much of it was shown, and how many answers came before.

    `asked` 0..s images of `plan.rows`; `answers_before` >= 0: answers in `Standing.values` when the
    plan was made; `number` from 1: how many of its kind the search has had with this one.
    """

    plan: SamplePlan
    asked: int
    answers_before: int
    number: int = 1


@dataclass(frozen=True)
class Look:
    """A second look that was taken: images chosen by something else than the search's own order.

    It ranked `seen_again` images that were positives before, and of the others that it showed,
    `new` became positives; `found` positives of the search after it. `answers_before` >= 0: answers
    in `Standing.values` when it was taken. `is_whole`: it had LOOK_SIZE images (or all that were
    left), and every one of them has an answer of yes or no.
    """

    seen_again: int
    new: int
    found: int
    answers_before: int
    is_whole: bool


@dataclass(frozen=True, eq=False)
class LookPlan:
    """Images of a second look: `rows` (k,) int64 to show, and the positives it came upon before.

    The first `beside_count` of them stand beside single positives, the others far from all answers.
    """

    rows: Integers
    seen_again: int
    beside_count: int


@dataclass(frozen=True, eq=False)
class Standing:
    """Where a search stands, as far as it can know.

    `answers` are all current answers, examples of the collection, samples and looks among them.
    `values` (k,) int8 of Value and `rounds` (k,) int64, not falling: the answers to rounds that the
    strategy chose, in the order they were given, and the round of each; examples, samples and looks
    are left out. `image_count` images can be searched, answered ones included. `scores` (u,), by
    the current head, of the unanswered images, empty without a head; `calibration` and `coverage`,
    None where not known. `sample` is the latest one by score, `control` the latest at random.
    `seed` >= 0 draws intervals.
    """

    answers: Answers
    values: Values
    rounds: Integers
    image_count: int
    scores: Floats
    calibration: Calibration | None = None
    coverage: CoverageEstimate | None = None
    sample: TakenSample | None = None
    control: TakenSample | None = None
    looks: tuple[Look, ...] = ()
    seed: int = 0

    @property
    def found(self) -> int:
        """Positives, examples among them."""
        return len(self.answers.positives)

    @property
    def unanswered_count(self) -> int:
        """Images without an answer."""
        return self.image_count - len(self.answers.rows)


@dataclass(frozen=True)
class Advice:
    """What a rule says now.

    `met`: the rule's own condition holds. `stop`: it holds, the second look was taken, and the rule
    keeps what the goal promises. `missing`: one plain sentence, empty when nothing is. `ask`: what
    to do next. `cost`: answers that would take, NaN when nobody can tell.
    """

    met: bool
    stop: bool
    missing: str
    ask: Ask
    cost: float


@dataclass(frozen=True)
class StopRule:
    """One entry of the register.

    `title`, `summary` and `source` are for people. `judge` says whether the rule is met and what is
    missing. `aim`: the part of the goal that it serves. `needs_look`: it sees with the
    eyes of the search, so a second look comes before it may advise. `risk`: which share (0..1)
    of its stops, after a clean look, was wrong on targets of several looks in replays, None where
    it never stopped; 0 for a certificate, which is wrong as seldom as the goal wants.
    """

    judge: Callable[[Standing, Goal], Advice]
    title: str
    summary: str
    kind: Kind
    source: str
    aim: Literal["recall", "positives", "coverage"] = "recall"
    needs_look: bool = True
    risk: float | None = None


def advise(name: str, standing: Standing, goal: Goal) -> Advice:
    """What the rule of that name advises.

    Parameters: `name` of STOP_RULES, otherwise UnknownStopRule; `standing` and `goal`; a rule whose
    aim is not the goal's is never met.
    Source: the second look of J. Boetje, R. van de Schoot, "The SAFE procedure", Systematic Reviews
    13, 2024, 10.1186/s13643-024-02502-7; measured risks: docs/algorithms.md, "When to stop".
    """
    rule = get_stop_rule(name)
    if getattr(goal, rule.aim) is None:
        return Advice(False, False, "This rule serves another kind of goal.", "nothing", math.nan)
    if rule.aim == "recall" and not standing.unanswered_count:
        return Advice(True, True, "", "nothing", 0)  # nothing is left to find
    advice = rule.judge(standing, goal)
    if not advice.met:
        return advice
    if rule.needs_look and not is_look_clean(standing):
        return _ask_for_look(advice, standing)
    if rule.risk is None or rule.risk > 1 - goal.confidence:
        return _refer_to_chance(advice, rule, standing, goal)
    return replace(advice, stop=True)


def get_stop_rule(name: str) -> StopRule:
    """The rule of that name. Raises UnknownStopRule, which names the known ones."""
    if name not in STOP_RULES:
        known = ", ".join(STOP_RULES)
        raise UnknownStopRule(f"no stop rule is called {name!r}; choose one of {known}")
    return STOP_RULES[name]


def most_left(found: int, goal: Goal) -> int:
    """How many images may remain while `found` of them are still the share that the goal wants.

    Parameters: `found` >= 0 positives; a goal of recall (another one gives 0). Returns >= 0.
    Source: recall = found / (found + left).
    """
    if goal.recall is None:
        return 0
    return math.floor(found / goal.recall - found + 1e-9)


def is_look_clean(standing: Standing) -> bool:
    """Whether the latest second look is whole and brought nothing new, and nothing since."""
    if not standing.looks:
        return False
    look = standing.looks[-1]
    return look.is_whole and look.new == 0 and look.found == standing.found


def plan_look(
    index: VectorIndex,
    answers: Answers,
    unanswered: Integers,
    size: int,
    *,
    rng: np.random.Generator,
) -> LookPlan:
    """A second look within one index: half beside each positive, half far from every answer.

    The first half takes positives by lot, and of each in turn the image nearest to it, which a head
    with one boundary may have given up. The second is farthest first among 2,000 unanswered images
    drawn by lot. Another embedder, where the collection has one, sees more.
    Parameters: `answers` so far; `unanswered` (u,) int64 rows that may be shown; `size` >= 0
    images, fewer where fewer are left; `rng` draws. Gives different rows of `unanswered`;
    `seen_again` counts the positives that stood between the nearest.
    Source: nearest neighbours, T. Cover, P. Hart, 1967; farthest first, T. F. Gonzalez, 1985.
    """
    half = (size + 1) // 2
    asked = rng.permutation(answers.positives)[:half]
    beside, seen_again = _list_beside(index, answers.positives, asked, unanswered, half)
    others = np.setdiff1d(unanswered, beside)
    drawn = np.sort(rng.permutation(others)[:EXPLORED])
    seen = index.vectors[np.concatenate([answers.rows, beside])]
    explored = _list_farthest(index, drawn, seen, size - len(beside))
    return LookPlan(np.concatenate([beside, explored]), seen_again, len(beside))


# --- The rules ----------------------------------------------------------------------------------


def _judge_run(standing: Standing, goal: Goal) -> Advice:  # noqa: ARG001  # a heuristic has no goal
    short = LONG_RUN - count_run(standing.values)
    return _more_answers(short <= 0, f"{_next_answers(short)}.", short)


def _judge_low_yield(standing: Standing, goal: Goal) -> Advice:  # noqa: ARG001
    few, window = FEW_OF
    latest = standing.values[-window:]
    yes = np.flatnonzero(latest == Value.YES)
    too_many = len(yes) - few
    # The answers until enough of the latest yes have left the window.
    short = max(window - len(latest), int(yes[too_many - 1]) + 1 if too_many > 0 else 0)
    missing = (
        f"At most {few} of the last {window} answers may be yes; {len(yes)} of the last "
        f"{len(latest)} {'is' if len(yes) == 1 else 'are'}. That takes {plural(short, 'answer')} "
        "more at least."
    )
    return _more_answers(short <= 0, missing, short)


def _judge_knee(standing: Standing, goal: Goal) -> Advice:  # noqa: ARG001
    ratio, needed = knee_ratio(standing.values, standing.rounds)
    now = f"{ratio:.0f} times rarer now" if ratio >= 1.5 else "hardly rarer yet"
    missing = (
        f"A yes must have become {needed:.0f} times rarer than it was when finds came quickest; it "
        f"is {now}."
    )
    return _more_answers(ratio >= needed, missing, math.nan)


def _judge_safe(standing: Standing, goal: Goal) -> Advice:
    run = _judge_run(standing, goal)
    short = math.ceil(SAFE_SHARE * standing.image_count) - len(standing.values)
    if short <= 0:
        return run
    missing = (
        f"A tenth of the collection must be answered, which takes {plural(short, 'answer')} more, "
        f"and the last {LONG_RUN} must all be no."
    )
    return _more_answers(False, missing, short)


def _judge_thinning(standing: Standing, goal: Goal) -> Advice:
    return _judge_left(
        yield_curve(standing.values, standing.unanswered_count, level=_two_sided(goal)),
        standing,
        goal,
    )


def _judge_sum(standing: Standing, goal: Goal) -> Advice:
    if standing.calibration is None or not len(standing.scores):
        missing = (
            "A yes must first come from images that the search chose by what it had learnt from "
            "your answers."
        )
        return _more_answers(False, missing, math.nan)
    return _judge_left(
        calibrated_sum(
            standing.scores,
            standing.calibration,
            rng=np.random.default_rng(standing.seed),
            level=_two_sided(goal),
        ),
        standing,
        goal,
    )


def _judge_sample(standing: Standing, goal: Goal) -> Advice:
    advice = _judge_sum(standing, goal)
    if not advice.met:
        return advice
    taken = standing.sample
    if taken is not None and taken.asked >= len(taken.plan.rows):
        sampled = np.isin(standing.answers.rows, taken.plan.rows)
        tally = Counter(standing.answers.values[sampled].tolist())
        if tally[Value.NO] == len(taken.plan.rows):
            return advice
        short = SAMPLE_HOLDS + taken.answers_before - len(standing.values)
        if tally[Value.YES] and short > 0:
            return _more_answers(False, _follow_up("sample", tally[Value.YES], short), short)
    size = min(SAMPLE_SIZE, standing.unanswered_count)
    missing = f"{plural(size, 'image')} of a sample by score must all be answered no."
    return Advice(False, False, missing, "estimate", size)


def _judge_control(standing: Standing, goal: Goal) -> Advice:
    taken = standing.control
    number = taken.number if taken else 0
    if taken is not None and taken.asked >= len(taken.plan.rows):
        left = certify_left(
            taken.plan,
            standing.answers,
            asked=taken.asked,
            unanswered_count=standing.unanswered_count,
            level=_level_of_try(number, goal),
        )
        advice = _judge_left(left, standing, goal)
        is_fresh = len(standing.values) - taken.answers_before < SAMPLE_HOLDS
        still_open = len(np.setdiff1d(taken.plan.frame, standing.answers.rows))
        # Where images joined since, no further answers but a new sample helps.
        if advice.met or (is_fresh and still_open == standing.unanswered_count):
            return advice
    size = images_to_certify(
        standing.unanswered_count,
        most_left(standing.found, goal),
        level=_level_of_try(number + 1, goal),
    )
    # Too dear to be taken while finds still come.
    short = SHORT_RUN - count_run(standing.values)
    if short > 0:
        missing = (
            f"{_next_answers(short)}, and then those to {plural(size, 'image')} drawn at random; "
            "if one of these is yes, more may be needed."
        )
        return _more_answers(False, missing, short + size)
    missing = (
        f"{plural(size, 'image')} drawn at random must be answered. Are all of them no, you may "
        "stop; if not, more may be needed."
    )
    return Advice(False, False, missing, "absence", size)


def _judge_ranked_tail(standing: Standing, goal: Goal) -> Advice:
    recall = goal.recall or 0.0
    k = len(standing.values)
    starts = np.flatnonzero(np.diff(standing.rounds, prepend=-1))
    p = recall_p_value(
        standing.values,
        k - starts,
        standing.image_count - (len(standing.answers.rows) - k),
        recall,
    )
    run = count_run(standing.values)
    needed = negatives_to_stop(
        max(standing.found, 1), recall, standing.unanswered_count + run, level=goal.confidence
    )
    met = p < 1 - goal.confidence
    if needed is None:
        return _more_answers(met, "Even answering all that is left would not be enough.", math.nan)
    short = max(needed - run, 1)
    return _more_answers(met, f"{_next_answers(short, about=True)}.", short)


def _judge_positives(standing: Standing, goal: Goal) -> Advice:
    short = (goal.positives or 0) - standing.found
    return _more_answers(short <= 0, f"{plural(short, 'more positive')} must be found.", math.nan)


def _judge_coverage(standing: Standing, goal: Goal) -> Advice:
    low = standing.coverage.low if standing.coverage else 0.0
    wanted = goal.coverage or 0.0
    missing = (
        f"The finds must surely span {100 * wanted:.0f} % of the target's looks; {100 * low:.0f} % "
        "is sure now."
    )
    return _more_answers(low >= wanted, missing, math.nan)


STOP_RULES: dict[str, StopRule] = {
    "run-of-noes": StopRule(
        _judge_run,
        "50 answers of no in a row",
        "Stops when the last 50 answers were all no.",
        "heuristic",
        "ASReview: R. van de Schoot et al., Nature Machine Intelligence 3, 2021",
        risk=0.77,
    ),
    "low-yield": StopRule(
        _judge_low_yield,
        "Hardly a yes any more",
        "Stops when at most 5 of the last 200 answers were yes.",
        "heuristic",
        "E. Yang, D. D. Lewis, O. Frieder, 2021, arXiv 2106.09871",
        risk=1.0,
    ),
    "knee": StopRule(
        _judge_knee,
        "A bend in the curve of finds",
        "Stops when finds have become many times rarer than they were.",
        "heuristic",
        "G. V. Cormack, M. R. Grossman, SIGIR 2016, 10.1145/2911451.2911510",
    ),
    "safe": StopRule(
        _judge_safe,
        "A tenth of the collection, then 50 no",
        "Stops when a tenth of the collection is answered and the last 50 answers were all no.",
        "heuristic",
        "J. Boetje, R. van de Schoot, 2024, 10.1186/s13643-024-02502-7",
        risk=0.25,
    ),
    "thinning-out": StopRule(
        _judge_thinning,
        "Finds thinning out",
        "Follows the curve of finds to its end and stops when hardly any are left on it.",
        "heuristic",
        "Z. Jelinski, P. B. Moranda, “Software reliability research”, 1972",
        risk=1.0,
    ),
    "sum-of-chances": StopRule(
        _judge_sum,
        "Sum of chances",
        "Adds up every unanswered image's chance and stops when the sum is small.",
        "estimate",
        "E. Yang, D. D. Lewis, O. Frieder, 2021, arXiv 2106.09871",
        risk=1.0,
    ),
    "score-sample": StopRule(
        _judge_sample,
        "Sum of chances, checked by a sample",
        "When the sum of chances is small, asks about 150 images from high and low scores, and "
        "stops when none of them is a yes.",
        "estimate",
        "after A. A. Navine et al., 2024, arXiv 2402.15360",
        risk=1.0,
    ),
    "ranked-tail": StopRule(
        _judge_ranked_tail,
        "A long tail of no",
        "Stops when the answers since the last finds are as good as a random sample without a yes.",
        "estimate",
        "M. Callaghan, F. Mueller-Hansen, 2020, 10.1186/s13643-020-01521-4",
    ),
    "random-sample": StopRule(
        _judge_control,
        "A random sample",
        "Asks about images drawn at random and stops when so few yes can't be chance.",
        "certificate",
        "H. S. Konijn, 1973; the elusion test of document review",
        needs_look=False,
        risk=0.0,
    ),
    "enough-positives": StopRule(
        _judge_positives,
        "Enough images",
        "Stops at the number of positives that you asked for.",
        "certificate",
        "counted",
        aim="positives",
        needs_look=False,
        risk=0.0,
    ),
    "enough-coverage": StopRule(
        _judge_coverage,
        "Enough variety",
        "Stops when the positives surely cover as much of the target's looks as you asked for.",
        "estimate",
        "docs/algorithms.md, “Coverage”",
        aim="coverage",
        risk=0.83,
    ),
}


def knee_ratio(values: Values, rounds: Integers) -> tuple[float, float]:
    """How many times finds have thinned out since the best round to cut at, and how many it takes.

    Parameters: `values` (k,) int8 of Value and `rounds` (k,) int64, in the order of answering.
    Returns the ratio, 0 before the second round, and the number it must reach.
    Source: Cormack, Grossman 2016; cuts at the ends of rounds, as they cut at the ends of batches.
    """
    found = np.cumsum(values == Value.YES)
    n, r = len(found), int(found[-1]) if len(found) else 0
    needed = 156.0 - min(r, 150)
    ends = np.flatnonzero(np.diff(rounds)) + 1
    if not len(ends):
        return 0.0, needed
    before = found[ends - 1]
    ratios = (before / ends) / ((1 + r - before) / (n - ends))
    return float(ratios.max()), needed


def _judge_left(left: Statement, standing: Standing, goal: Goal) -> Advice:
    """Met when even the upper end leaves the share of the goal."""
    allowed = most_left(standing.found, goal)
    missing = (
        f"At most {plural(allowed, 'image')} of the target may be left to find, and by this "
        f"reckoning there can be up to {spaced(left.high)}."
    )
    return _more_answers(left.high < allowed + 1, missing, math.nan)


def _next_answers(count: int, *, about: bool = False) -> str:
    if count == 1:
        return "The next answer must be no"
    return f"The next {'about ' if about else ''}{spaced(count)} answers must all be no"


def _more_answers(met: bool, missing: str, cost: float) -> Advice:
    if met:
        return Advice(True, False, "", "nothing", 0)
    return Advice(False, False, missing, "answers", cost)


def _level_of_try(number: int, goal: Goal) -> float:
    """Each further random sample is another chance to be wrong: half of the risk, then a quarter.

    So all tries together keep the goal's word, as in testing one hypothesis again and again.
    """
    return 1 - (1 - goal.confidence) * math.pow(0.5, number)


def _two_sided(goal: Goal) -> float:
    """The level of an interval whose upper end alone is as sure as the goal wants."""
    return 2 * goal.confidence - 1


def _refer_to_chance(advice: Advice, rule: StopRule, standing: Standing, goal: Goal) -> Advice:
    """What a rule still lacks that is met but does not keep what the goal promises."""
    record = "in replays it never came to a stop"
    if rule.risk is not None:
        record = f"in replays {100 * rule.risk:.0f} % of its stops were too early"
    missing = f"The rule is met, but on targets with several looks {record}."
    if goal.recall is None:
        return replace(advice, missing=missing, ask="answers", cost=math.nan)
    size = images_to_certify(
        standing.unanswered_count, most_left(standing.found, goal), level=goal.confidence
    )
    missing += f" Only images drawn at random can tell: about {spaced(size)}."
    return replace(advice, missing=missing, ask="absence", cost=size)


def _ask_for_look(advice: Advice, standing: Standing) -> Advice:
    """A second look that found something is followed up before the next one."""
    look = standing.looks[-1] if standing.looks else None
    if look and look.new:
        short = SHORT_RUN + look.answers_before - len(standing.values)
        if short > 0:
            missing = _follow_up("second look", look.new, short)
            return replace(advice, missing=missing, ask="answers", cost=short)
    missing = (
        f"A second look at {LOOK_SIZE} images, chosen by something else than the search itself, "
        "must bring nothing new."
    )
    if look and not look.is_whole:
        missing += (
            f" The last one does not count: it had fewer than {LOOK_SIZE} images, or left some "
            "without a yes or no."
        )
    return replace(advice, missing=missing, ask="second-look", cost=LOOK_SIZE)


def _follow_up(what: str, new: int, short: int) -> str:
    return (
        f"The {what} found {new} more; {plural(short, 'answer')} must follow "
        f"{'it' if new == 1 else 'them'} up."
    )


def _list_beside(
    index: VectorIndex, positives: Integers, asked: Integers, unanswered: Integers, size: int
) -> tuple[Integers, int]:
    """Rows nearest to each of `asked` in turn, and the positives that stood between."""
    allowed = np.sort(np.concatenate([positives, unanswered]))
    _, nearest = index.nearest(index.vectors[asked], size + len(positives), rows=allowed)
    ranked = nearest.T[asked != nearest.T]  # nobody is beside themselves
    rows, places = np.unique(ranked, return_index=True)
    rows = rows[np.argsort(places)]
    is_known = np.isin(rows, positives)
    beside = rows[~is_known][:size]
    if not len(beside):
        return beside, int(is_known.sum())
    last = int(np.flatnonzero(rows == beside[-1])[0])
    return beside, int(is_known[:last].sum())


def _list_farthest(index: VectorIndex, rows: Integers, seen: Floats, size: int) -> Integers:
    vectors = index.vectors[rows]
    closest = np.full(len(rows), -np.inf)
    for start in range(0, len(seen), CHUNK_ROWS):
        closest = np.maximum(
            closest, (vectors @ seen[start : start + CHUNK_ROWS].T).max(axis=1, initial=-np.inf)
        )
    chosen: list[int] = []
    for _ in range(min(size, len(rows))):
        position = int(np.argmin(closest))
        chosen.append(position)
        closest = np.maximum(closest, vectors @ vectors[position])
        closest[chosen] = np.inf
    return rows[chosen]
