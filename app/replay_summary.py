"""Figures of a replay: means with intervals by strategy and band, and what differs from pf-ma.

The unit is the target: seeds of one target are averaged first, for they are repeats of one thing
and not evidence of their own (S. H. Hurlbert, "Pseudoreplication and the design of ecological field
experiments", 1984). Intervals are Student's t over the targets ("The probable error of a mean",
1908); differences are paired by target. Their ends are cut to what the figure can be. Fewer than
five targets have a mean alone, for their interval is mostly wider than what it is about. Strategies
are many, so a difference counts as beyond chance only if its p-value is below 0.05 after S. Holm's
correction over the strategies ("A simple sequentially rejective multiple test procedure", 1979).
"""

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from app.engine.metrics import (
    answers_until,
    area,
    positives_per_100_answers,
    round_precision,
    rounds_until,
)
from app.engine.numerals import plural
from app.evaluation import (
    BANDS,
    RIVAL,
    PlayedRun,
    ReplaySettings,
    ServerRoundRow,
    StopRow,
    read_stop,
    write_atomically,
)

SUMMARY, STOP_SUMMARY = "summary.csv", "stop_summary.csv"
EARLY = 5  # rounds after which a first figure is taken
LEVEL = 0.8  # of recall
FURTHER_LEVELS = (0.5, 0.95)
FURTHER_AREAS = {
    "recall": "recall",
    "mode_coverage": "mode coverage",
    "f1": "F1",
    "average_precision": "average precision",
}
CONFIDENCE = 0.95
FEWEST_TARGETS = 5  # for an interval or a p-value
ALL = "all"

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Measure:
    """One figure of a run, from 0 to `most`; a difference in the wrong direction is no gain.

    The report shows those that are not `further` first, the others on demand.
    """

    name: str
    title: str
    of_run: Callable[[PlayedRun], float]
    more_is_better: bool = True
    digits: int = 3
    further: bool = False
    most: float = 1  # a share; counts and times have no end
    gets_there: Callable[[PlayedRun], bool] | None = None  # one that does not counts its budget


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; the interval is NaN for fewer than five targets."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """One measure of one strategy in one band, and its paired difference to pf-ma."""

    value: Interval
    difference: Interval | None  # None for pf-ma itself, and without it
    p: float  # corrected for the number of strategies; NaN without a difference
    runs_there: tuple[int, int] | None = None  # that got to the recall it counts to, and in all

    @property
    def never_there(self) -> bool:
        """Whether no run got to the recall: then the mean is the budget, and says no more."""
        return self.runs_there is not None and not self.runs_there[0]

    @property
    def is_lower_bound(self) -> bool:
        """Whether runs that did not get there count as if they had at the end of their budget."""
        return self.runs_there is not None and self.runs_there[0] < self.runs_there[1]

    @property
    def beyond_chance(self) -> bool:
        """Whether the difference is one that chance would hardly make."""
        return self.p < 1 - CONFIDENCE


@dataclass(frozen=True)
class SummaryRow:
    """A strategy in a band."""

    band: str
    strategy: str
    targets: int
    runs: int
    figures: dict[str, Figure]  # by the name of the measure


@dataclass(frozen=True)
class StopSummaryRow:
    """A stop rule on the runs of one strategy.

    `stopped` is the share of runs in which it stopped; all that follows is of those runs alone:
    the share where the goal was truly reached, recall, answers given, and answers beyond the first
    moment when the goal was true (of the runs that reached it).
    """

    strategy: str
    rule: str
    goal: float
    runs: int
    stopped: Interval
    reached: Interval
    recall: Interval
    answers: Interval
    beyond: Interval


def summarise(runs: list[PlayedRun], settings: ReplaySettings) -> list[SummaryRow]:
    """A row for each band (all targets first) and strategy."""
    measures = list_measures(runs, settings)
    summary = []
    for band in list_bands(runs):
        own = [run for run in runs if band in (ALL, run.rows[0].band)]
        targets = list(dict.fromkeys(run.target for run in own))
        figures: dict[str, dict[str, Figure]] = {name: {} for name in settings.strategies}
        for measure in measures:
            values = {
                strategy: mean_by_target(own, strategy, targets, measure.of_run)
                for strategy in settings.strategies
            }
            for strategy, figure in _compare(values, measure.most).items():
                figures[strategy][measure.name] = replace(
                    figure, runs_there=_count_there(own, strategy, measure)
                )
        for strategy in settings.strategies:
            count = sum(run.strategy == strategy for run in own)
            summary.append(SummaryRow(band, strategy, len(targets), count, figures[strategy]))
    return summary


def write_summary(path: Path, summary: list[SummaryRow]) -> None:
    """summary.csv: a line for each band and strategy, six cells for each measure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = list(summary[0].figures)
    header = ["band", "strategy", "targets", "runs"]
    for name in names:
        minus = f"{name}_minus_{RIVAL}"
        header += [name, f"{name}_low", f"{name}_high", minus, f"{minus}_low", f"{minus}_high"]
        header += [f"{minus}_p"]
    writer.writerow(header)
    for row in summary:
        cells: list[object] = [row.band, row.strategy, row.targets, row.runs]
        for figure in row.figures.values():
            for one in (figure.value, figure.difference):
                cells += (
                    [_cell(number) for number in (one.mean, one.low, one.high)] if one else [""] * 3
                )
            cells.append(_cell(figure.p))
        writer.writerow(cells)
    write_atomically(path, text.getvalue())


def summarise_stops(runs: list[PlayedRun], settings: ReplaySettings) -> list[StopSummaryRow]:
    """A row for each strategy and stop rule, over all targets; seeds are averaged first."""
    targets = list(dict.fromkeys(run.target for run in runs))
    summary = []
    for strategy in settings.strategies:
        for text in settings.stops:
            rule, _ = read_stop(text)
            own = [one for run in runs if run.strategy == strategy for one in run.stops]
            own = [one for one in own if one.rule == rule]
            ended = [one for one in own if one.stopped]
            summary.append(
                StopSummaryRow(
                    strategy,
                    rule,
                    own[0].goal,
                    len(own),
                    interval(_mean_of_stops(own, targets, "stopped"), 0, 1),
                    interval(_mean_of_stops(ended, targets, "reached"), 0, 1),
                    interval(_mean_of_stops(ended, targets, "recall"), 0, 1),
                    interval(_mean_of_stops(ended, targets, "answers"), 0),
                    interval(_mean_of_stops(ended, targets, "beyond"), 0),
                )
            )
    return summary


def write_stop_summary(path: Path, summary: list[StopSummaryRow]) -> None:
    """stop_summary.csv: a line for each strategy and rule, three cells for each figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("stopped", "reached", "recall", "answers", "beyond")
    ends = ("", "_low", "_high")
    header = ["strategy", "rule", "goal", "runs"]
    writer.writerow(header + [f"{name}{end}" for name in names for end in ends])
    for row in summary:
        cells: list[object] = [row.strategy, row.rule, row.goal, row.runs]
        for one in (row.stopped, row.reached, row.recall, row.answers, row.beyond):
            cells += [_cell(one.mean), _cell(one.low), _cell(one.high)]
        writer.writerow(cells)
    write_atomically(path, text.getvalue())


def list_measures(runs: list[PlayedRun], settings: ReplaySettings) -> list[Measure]:
    """What is summed up of each run; figures nobody could measure are left out."""
    last = settings.rounds
    early = min(EARLY, last)
    budget = settings.rounds * settings.size
    after_early, after_last = (f"after {plural(number, 'round')}" for number in (early, last))
    measures = [
        Measure(f"coverage@{early}", f"Coverage {after_early}", _at("coverage", early)),
        Measure(f"coverage@{last}", f"Coverage {after_last}", _at("coverage", last)),
        Measure("area", "Area under coverage", lambda run: _area(run, last)),
        Measure(f"recall@{last}", f"Recall {after_last}", _at("recall", last)),
        Measure(f"f1@{last}", f"F1 {after_last}", _at("f1", last)),
        Measure(
            "answers_to_80",
            "Answers to 80 % recall",
            partial(answers_to_recall, level=LEVEL, budget=budget),
            more_is_better=False,
            digits=0,
            most=np.inf,
            gets_there=partial(reaches, level=LEVEL),
        ),
        Measure(
            "ms_per_round",
            "Milliseconds a round",
            _ms_per_round,
            more_is_better=False,
            digits=1,
            most=np.inf,
        ),
        Measure(
            "precision",
            "Precision of rounds",
            lambda run: _mean_precision(run, last),
            further=True,
        ),
        Measure(
            "per_100",
            "Yes in 100 answers",
            _per_hundred,
            digits=1,
            further=True,
            most=100,
        ),
        Measure(
            f"average_precision@{last}",
            f"Average precision {after_last}",
            _at("average_precision", last),
            further=True,
        ),
        *(
            Measure(
                f"event_recall@{when}",
                f"Share of events found {after}",
                at,
                further=True,
            )
            for when, after in ((early, after_early), (last, after_last))
            for at in (_at("event_recall", when),)
            if any(row.n_target_events not in (0, row.n_target) for run in runs for row in run.rows)
        ),
        *(
            Measure(
                f"area_{column}",
                f"Area under {title}",
                partial(_area, rounds=last, column=column),
                further=True,
            )
            for column, title in FURTHER_AREAS.items()
        ),
        *(
            Measure(
                f"answers_to_{100 * level:.0f}",
                f"Answers to {100 * level:.0f} % recall",
                partial(answers_to_recall, level=level, budget=budget),
                more_is_better=False,
                digits=0,
                further=True,
                most=np.inf,
                gets_there=partial(reaches, level=level),
            )
            for level in FURTHER_LEVELS
        ),
        *(
            Measure(
                f"rounds_to_{100 * level:.0f}",
                f"Rounds to {100 * level:.0f} % recall",
                partial(rounds_to_recall, level=level, budget=last),
                more_is_better=False,
                digits=1,
                further=True,
                most=np.inf,
                gets_there=partial(reaches, level=level),
            )
            for level in sorted({LEVEL, *FURTHER_LEVELS})
        ),
    ]
    by_name = {measure.name: measure for measure in measures}  # one @5 when there are 5 rounds
    return [
        measure
        for measure in by_name.values()
        if any(np.isfinite(measure.of_run(run)) for run in runs)
    ]


def answers_to_recall(run: PlayedRun, level: float, budget: int) -> float:
    """Answers given when recall reached `level`; a run that never did counts its whole budget.

    So the mean is one over a limited time (P. Royston, M. Parmar, "Restricted mean survival time",
    2013): a lower bound where some runs fell short.
    """
    answers = np.array([row.answers for row in run.rows])
    return min(answers_until(answers, curve(run, "recall", len(run.rows)), level), budget)


def rounds_to_recall(run: PlayedRun, level: float, budget: int) -> float:
    """As `answers_to_recall`, counted in rounds: a run that never did counts all of them."""
    return min(rounds_until(curve(run, "recall", len(run.rows)), level), budget)


def reaches(run: PlayedRun, level: float) -> bool:
    """Whether recall reached `level` within the run."""
    return bool(np.isfinite(rounds_until(curve(run, "recall", len(run.rows)), level)))


def curve(run: PlayedRun, column: str, rounds: int) -> Doubles:
    """A column after each of `rounds` rounds; a run that ended early stays where it was."""
    values = np.array([getattr(row, column) for row in run.rows[:rounds]], dtype=np.float64)
    return np.concatenate([values, np.full(rounds - len(values), values[-1])])


def mean_by_target(
    runs: Iterable[PlayedRun],
    strategy: str,
    targets: list[str],
    of_run: Callable[[PlayedRun], float],
) -> Doubles:
    """The mean over the seeds of each target; NaN for a target without a figure."""
    by_target: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        value = of_run(run) if run.strategy == strategy else np.nan
        if np.isfinite(value):
            by_target[run.target].append(value)
    return np.array([np.mean(by_target[t]) if by_target[t] else np.nan for t in targets])


def interval(values: Doubles, least: float = -np.inf, most: float = np.inf) -> Interval:
    """The mean of the targets' values (those that are not NaN) with its 95 % t interval.

    Its ends are cut to `least`..`most`, between which the values are.
    """
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return Interval(np.nan, np.nan, np.nan)
    mean = float(values.mean())
    if len(values) < FEWEST_TARGETS:
        return Interval(mean, np.nan, np.nan)
    half = stdtrit(len(values) - 1, 1 - (1 - CONFIDENCE) / 2) * _standard_error(values)
    return Interval(mean, max(mean - half, least), min(mean + half, most))


def p_value(differences: Doubles) -> float:
    """Two-sided, of a paired t-test; NaN for fewer than five targets."""
    differences = differences[np.isfinite(differences)]
    if len(differences) < FEWEST_TARGETS:
        return float("nan")
    error = _standard_error(differences)
    if error == 0:
        return 1.0 if differences[0] == 0 else 0.0
    return float(2 * stdtr(len(differences) - 1, -abs(differences.mean()) / error))


def correct_by_holm(p_values: dict[str, float]) -> dict[str, float]:
    """Holm's step-down correction over all strategies that have a p-value."""
    known = sorted((p, name) for name, p in p_values.items() if np.isfinite(p))
    corrected = dict(p_values)
    largest = 0.0
    for place, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - place) * p))
        corrected[name] = largest
    return corrected


def list_bands(runs: list[PlayedRun]) -> list[str]:
    """All targets, then each band that has one."""
    present = {run.rows[0].band for run in runs}
    return [ALL, *(band for band in BANDS if band in present)]


def _compare(values: dict[str, Doubles], most: float) -> dict[str, Figure]:
    """The figures of a measure from 0 to `most`: a difference is at most as large either way."""
    rival = values.get(RIVAL)
    differences = (
        {} if rival is None else {n: own - rival for n, own in values.items() if n != RIVAL}
    )
    p_values = correct_by_holm({name: p_value(own) for name, own in differences.items()})
    return {
        name: Figure(
            interval(own, 0, most),
            interval(differences[name], -most, most) if name in differences else None,
            p_values.get(name, float("nan")),
        )
        for name, own in values.items()
    }


def _count_there(runs: list[PlayedRun], strategy: str, measure: Measure) -> tuple[int, int] | None:
    if measure.gets_there is None:
        return None
    there = [measure.gets_there(run) for run in runs if run.strategy == strategy]
    return sum(there), len(there)


def _mean_of_stops(stops: list[StopRow], targets: list[str], column: str) -> Doubles:
    """The mean over the seeds of each target; NaN for a target without a figure."""
    by_target: dict[str, list[float]] = defaultdict(list)
    for one in stops:
        if np.isfinite(value := float(getattr(one, column))):
            by_target[one.target].append(value)
    return np.array([np.mean(by_target[t]) if by_target[t] else np.nan for t in targets])


def _at(column: str, number: int) -> Callable[[PlayedRun], float]:
    return lambda run: float(curve(run, column, number)[number - 1])


def _area(run: PlayedRun, rounds: int, column: str = "coverage") -> float:
    return area(curve(run, column, rounds))


def _mean_precision(run: PlayedRun, rounds: int) -> float:
    """The mean over the rounds; one that could not be filled counts by the images it had."""
    before = 0
    shares = []
    for row in run.rows[:rounds]:
        shares.append(round_precision(row.yes_in_round, row.answers - before))
        before = row.answers
    return float(np.mean(shares))


def _per_hundred(run: PlayedRun) -> float:
    """Of all rounds together: yes among the images that were asked about."""
    yes_count = sum(row.yes_in_round for row in run.rows)
    return positives_per_100_answers(yes_count, run.rows[-1].answers)


def _ms_per_round(run: PlayedRun) -> float:
    """Of the engine offline; of the whole request when a server was asked."""
    return float(
        np.mean(
            [
                row.wait_ms if isinstance(row, ServerRoundRow) else row.fit_ms + row.select_ms
                for row in run.rows
            ]
        )
    )


def _standard_error(values: Doubles) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _cell(number: float) -> str:
    return "" if np.isnan(number) else f"{number:.6g}"
