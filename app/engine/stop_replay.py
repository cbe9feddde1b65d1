"""Stop rules on the rounds of a replay: when each would have stopped, and what that was worth.

The search goes on as it was played; a rule that asks for a sample or a second look gets it at that
moment, and its answers count as answers given. What they find counts as found, but does not teach
the head: the rounds stay those of the replay, the same for every rule.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from app.engine.answers import Answers, Value
from app.engine.coverage import (
    REDRAWS,
    CoverageEstimate,
    choose_candidates,
    class_radius,
    coverage,
    estimate_coverage,
)
from app.engine.head import Head
from app.engine.index import VectorIndex
from app.engine.metrics import recall
from app.engine.remaining import Calibration, calibrate, plan_absence, plan_estimate
from app.engine.replay import ReplayRound
from app.engine.stopping import (
    LOOK_SIZE,
    Advice,
    Goal,
    Look,
    Standing,
    TakenSample,
    advise,
    get_stop_rule,
    is_look_clean,
    plan_look,
)

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Values = NDArray[np.int8]
# The oracle's answers to rows (k,), in the round of that number: (k,) of Value.
AskOracle = Callable[[Integers, int], Values]

STOP_STREAM = 3  # apart from the random numbers of rounds, oracle and opening


@dataclass(frozen=True)
class StopOutcome:
    """What became of one rule in one run.

    `stopped`: the rule was met and, where it needs one, a second look was clean; `advised`: a live
    search would have been told to stop. The figures are of that moment, or of the last round
    without it: `answers` given, `extra` of them to samples and looks, `recall` and `coverage` 0..1
    of everything found, and whether the goal was truly `reached`. `first`: answers when the rounds
    alone first truly reached it, NaN where they never did; `beyond`: answers given after that, NaN
    unless the rule stopped with the goal reached.
    """

    stopped: bool
    advised: bool
    round: int
    answers: int
    extra: int
    recall: float
    coverage: float
    reached: bool
    first: float
    beyond: float


def replay_stops(
    index: VectorIndex,
    truth_rows: Integers,
    played: list[ReplayRound],
    goals: Mapping[str, Goal],
    *,
    rounds: int,
    opening_count: int,
    pool_rows: Integers,
    ask_oracle: AskOracle,
    seed: int,
) -> dict[str, StopOutcome]:
    """Walk through the rounds with each rule until it says to stop.

    Parameters: `truth_rows` (t,) int64, the target's rows that can be found, t >= 1; `played`, at
    least one round, as `replay` gave them; `goals`, by names of STOP_RULES (otherwise
    UnknownStopRule); `rounds` >= 1, how many of `played` to walk: one less than were played lets
    the last have its head; `opening_count`, examples that opened the run; `pool_rows` (m,) int64,
    ascending, the rows that could be shown; `ask_oracle` answers samples and looks; `seed` >= 0 of
    the run. Returns an outcome for each rule; the same arguments give the same.
    Source: cost against the oracle's stop, D. D. Lewis, E. Yang, O. Frieder, CIKM 2021.
    """
    targets = index.vectors[truth_rows]
    radius = class_radius(targets)

    def measure(answers: Answers) -> tuple[float, float, int]:
        found = np.isin(truth_rows, answers.positives)
        share = recall(int(found.sum()), len(truth_rows))
        return share, coverage(targets, found, radius), len(answers.positives)

    waiting = {name: _Waiting(goal) for name, goal in goals.items()}
    outcomes: dict[str, StopOutcome] = {}
    last = min(rounds, len(played))
    for number in range(1, last + 1):
        moment = describe_moment(index, played, number, opening_count, pool_rows, seed)
        by_rounds = measure(moment.answers)
        for name, own in waiting.items():
            if np.isnan(own.first) and _is_reached(own.goal, *by_rounds):
                own.first = float(len(moment.values))
            if name in outcomes:
                continue
            standing, advice, stopped = _ask_rule(moment, own, name, ask_oracle)
            if stopped or number == last:
                share, covered, count = measure(standing.answers)
                reached = _is_reached(own.goal, share, covered, count)
                answers = len(standing.answers.rows) - opening_count
                outcomes[name] = StopOutcome(
                    stopped,
                    advice.stop,
                    number,
                    answers,
                    answers - len(moment.values),
                    share,
                    covered,
                    reached,
                    np.nan,
                    float(answers) if stopped and reached else np.nan,
                )
    return {
        name: replace(outcomes[name], first=own.first, beyond=outcomes[name].beyond - own.first)
        for name, own in waiting.items()
    }


@dataclass
class _Waiting:
    """A rule on its way, and what it has asked for beyond the rounds."""

    goal: Goal
    first: float = np.nan
    extra: Answers = field(default_factory=Answers.empty)
    sample: TakenSample | None = None
    control: TakenSample | None = None
    looks: tuple[Look, ...] = ()


@dataclass(frozen=True, eq=False)
class RunMoment:
    """A run after round `number` of it: what a live search would know then, the same for all rules.

    `answers` are all, those of the opening first; `values` (k,) int8 of Value and `rounds` (k,)
    int64 leave them out. `scores` (n,) float32 by the head after the round, None without one;
    `calibration` of what the rounds so far have shown, None before a yes that a head chose.
    `pool_rows` (m,) int64, ascending: the rows that could be shown; `seed` >= 0 of the run.
    """

    index: VectorIndex
    number: int
    answers: Answers
    values: Values
    rounds: Integers
    scores: Floats | None
    calibration: Calibration | None
    pool_rows: Integers
    seed: int

    @cached_property
    def unanswered(self) -> Integers:
        """Rows that could be shown and have no answer, (u,) int64, ascending."""
        return np.setdiff1d(self.pool_rows, self.answers.rows)


def describe_moment(
    index: VectorIndex,
    played: list[ReplayRound],
    number: int,
    opening_count: int,
    pool_rows: Integers,
    seed: int,
) -> RunMoment:
    """A run as it stood after one of its rounds.

    Parameters: `played`, as `replay` or `retrace` gave them, one round more than `number` for the
    head after it; `number` from 1; the others as in `replay_stops`.
    Source: what `Moment` of app/dashboards/moments.py knows of a live search, from the same rounds.
    """
    answers = played[number - 1].answers
    values = answers.values[opening_count:]
    sizes = [len(one.proposal.rows) for one in played[:number]]
    # The head that chose the next round is the head after this one's answers.
    head: Head | None = played[min(number, len(played) - 1)].proposal.head
    scores = None if head is None else index.scores(head.weights, head.bias)
    judged = [one for one in played[:number] if one.proposal.head is not None]
    calibration = None
    if judged and scores is not None:
        calibration = calibrate(
            np.concatenate([one.proposal.scores for one in judged]),
            np.concatenate([one.values for one in judged]),
            scores[np.setdiff1d(pool_rows, answers.rows)],
        )
    return RunMoment(
        index,
        number,
        answers,
        values,
        np.repeat(np.arange(1, number + 1), sizes),
        scores,
        calibration,
        pool_rows,
        seed,
    )


def _ask_rule(
    moment: RunMoment, own: _Waiting, name: str, ask_oracle: AskOracle
) -> tuple[Standing, Advice, bool]:
    """What a rule says, after giving it the sample and the look that it asks for."""
    needs_look = get_stop_rule(name).needs_look
    rng = np.random.default_rng([moment.seed, moment.number, STOP_STREAM])
    while True:
        standing, unanswered = _stand(moment, own)
        advice = advise(name, standing, own.goal)
        stopped = advice.stop or (advice.met and (not needs_look or is_look_clean(standing)))
        if stopped or advice.ask in ("answers", "nothing"):
            return standing, advice, stopped
        before = len(moment.values)
        if advice.ask == "second-look":
            look = plan_look(moment.index, standing.answers, unanswered, LOOK_SIZE, rng=rng)
            values = ask_oracle(look.rows, moment.number)
            new = _answer(own, look.rows, values)
            found, is_whole = standing.found + new, bool((values != Value.UNSURE).all())
            own.looks = (*own.looks, Look(look.seen_again, new, found, before, is_whole))
            continue
        size = int(advice.cost)
        if advice.ask == "estimate":
            plan = plan_estimate(standing.scores, unanswered, size, rng=rng)
            own.sample = TakenSample(plan, len(plan.rows), before)
        else:
            plan = plan_absence(unanswered, size, rng=rng)
            number = own.control.number + 1 if own.control else 1
            own.control = TakenSample(plan, len(plan.rows), before, number)
        _answer(own, plan.rows, ask_oracle(plan.rows, moment.number))


def _stand(moment: RunMoment, own: _Waiting) -> tuple[Standing, Integers]:
    """Where the search stands for this rule, and the rows it has no answer on, ascending."""
    is_open = np.zeros(moment.index.count, dtype=bool)
    is_open[moment.pool_rows] = True
    is_open[moment.answers.rows] = False
    is_new = is_open[own.extra.rows]
    is_open[own.extra.rows] = False
    answers = Answers(
        np.concatenate([moment.answers.rows, own.extra.rows[is_new]]),
        np.concatenate([moment.answers.values, own.extra.values[is_new]]),
    )
    unanswered = np.flatnonzero(is_open)
    scores = np.empty(0, np.float32) if moment.scores is None else moment.scores[unanswered]
    standing = Standing(
        answers=answers,
        values=moment.values,
        rounds=moment.rounds,
        image_count=len(answers.rows) + len(unanswered),
        scores=scores,
        calibration=moment.calibration,
        sample=own.sample,
        control=own.control,
        looks=own.looks,
        seed=moment.seed,
    )
    if own.goal.coverage is not None and moment.calibration is not None and len(scores):
        standing = replace(standing, coverage=_estimate_coverage(moment, standing, unanswered))
    return standing, unanswered


def _estimate_coverage(
    moment: RunMoment, standing: Standing, unanswered: Integers
) -> CoverageEstimate | None:
    if moment.calibration is None or not standing.found:
        return None
    rng = np.random.default_rng(moment.seed)
    chosen = choose_candidates(standing.scores)
    vectors = moment.index.vectors
    return estimate_coverage(
        vectors[standing.answers.positives],
        vectors[unanswered[chosen.places]],
        moment.calibration.draws(standing.scores[chosen.places], REDRAWS, rng=rng),
        weights=chosen.weights,
        rng=rng,
    )


def _answer(own: _Waiting, rows: Integers, values: Values) -> int:
    """Keep the answers to a sample or look; returns how many are yes."""
    own.extra = Answers(
        np.concatenate([own.extra.rows, rows]), np.concatenate([own.extra.values, values])
    )
    return int((values == Value.YES).sum())


def _is_reached(goal: Goal, share: float, covered: float, positives: int) -> bool:
    """Whether every part of the goal is true; 0.9 of 10 images is 9 images."""
    return (
        (goal.recall is None or share >= goal.recall - 1e-9)
        and (goal.coverage is None or covered >= goal.coverage - 1e-9)
        and (goal.positives is None or positives >= goal.positives)
    )
