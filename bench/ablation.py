"""What each part of the strategy `rarefind` is worth: replays with one part left out at a time.

    python -m bench.ablation INDEX_FOLDER LABELS.csv [--seeds 5] [--targets 40] [--out FILE.csv]

LABELS.csv has the columns image_id and label. For each seed 30 % of every label are held out to
measure F1; every label of 6 images or more (or so many of them, drawn) is a target, opened with one
image of it drawn by the seed, for 25 rounds of 10 images. A label with more than 100 images in the
pool is a target twice: as it is, a *large* target, and with 30 of them kept and 15 of those held
out, as rare as the others. Prints, for rare and for large targets, means over targets and seeds,
and the 95 % interval of the paired difference to pf-ma, by resampling targets.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from app.engine import metrics
from app.engine.coverage import class_radius, coverage
from app.engine.head import Head
from app.engine.index import VectorIndex, open_index
from app.engine.loop import STRATEGIES
from app.engine.metric import Metric
from app.engine.replay import replay
from app.engine.strategies import ranking
from app.engine.strategies.fitting import (
    LOOSE_C,
    STEADYING,
    WITHOUT_A_NO,
    fit_steadied,
    fit_with_pseudo_negatives,
)
from app.engine.strategies.round_state import Choice, Chooser, Lesson, RoundState, smallest

Integers = NDArray[np.int64]


def fit_loosely(lesson: Lesson) -> Head:
    """The head of `rarefind` on the answers alone, as far as they hold both classes."""
    wanted = 0 if len(lesson.negatives) else WITHOUT_A_NO
    return fit_with_pseudo_negatives(lesson, wanted, C=LOOSE_C)


def fit_tightly(lesson: Lesson) -> Head:
    """The head of `rarefind`, regularised as that of pf-ma."""
    return fit_with_pseudo_negatives(lesson, STEADYING)


def choose_plainly(state: RoundState) -> Choice:
    """The order of `rarefind`, images compared by the vectors as they are."""
    none = np.zeros((0, state.index.dimension), np.float32)
    plain = Metric(np.zeros(state.index.dimension, np.float32), none, none[:, 0], 1.0)
    return ranking.rarefind(replace(state, index=replace(state.index, _metric=plain)))


def rarefind_with(name: str, part: Any) -> Chooser:
    """The order of `rarefind` with one of its parts replaced."""

    def choose(state: RoundState) -> Choice:
        with patch.object(ranking, name, part):
            return ranking.rarefind(state)

    return choose


def no_doubt(state: RoundState) -> Choice:
    """In place of pf_ma: nothing."""
    return Choice(state.unanswered[:0], ())


def find_with_one_head(
    state: RoundState, doubtful: Integers
) -> tuple[Integers, NDArray[np.float32], NDArray[np.float32]]:
    """In place of _find_likely: by the head alone."""
    order = np.sort(smallest(-state.scores, ranking.SHORTLIST + state.size))
    order = order[~np.isin(state.unanswered[order], doubtful)]
    rows = state.unanswered[order]
    return rows, state.index.read(rows), state.scores[order]


def no_crowding(cosines: NDArray[np.float32], _own: Integers) -> NDArray[np.float32]:
    """In place of _crowding: everywhere alike."""
    return np.zeros(len(cosines), np.float32)


def fit_with_line_at_0(lesson: Lesson) -> Head:
    """The head of `rarefind` as it is fitted."""
    return replace(fit_steadied(lesson), line=0.0)


WITHOUT_A_PART: dict[str, dict[str, Any]] = {
    "rarefind, first head C = 10": {"fit": fit_tightly},
    "rarefind, first head on answers": {"fit": fit_loosely},
    "rarefind, line at 0": {"fit": fit_with_line_at_0},
    "rarefind, without the metric": {"choose": choose_plainly},
    "rarefind, none by doubt": {"choose": rarefind_with("pf_ma", no_doubt)},
    "rarefind, all by doubt": {"choose": ranking.pf_ma},
    "rarefind, no resemblance": {"choose": rarefind_with("RESEMBLANCE", 0.0)},
    "rarefind, one head": {"choose": rarefind_with("_find_likely", find_with_one_head)},
    "rarefind, nearest answers alone": {"choose": rarefind_with("NEAREST", 1)},
    "rarefind, crowds as others": {"choose": rarefind_with("_crowding", no_crowding)},
    "rarefind, looks may repeat": {"choose": rarefind_with("_common_similarity", lambda _: 2.0)},
    "rarefind, score alone": {"choose": ranking.most_positive},
}
COMPARED = ["pf-ma", "most-positive", "most-ambiguous", "adaptive", "rarefind"]
MEASURES = ("coverage@5", "coverage@25", "area", "recall@25", "F1@25", "AP@25")
ROUNDS = 25
SIZE = 10
LARGE = 100
KEPT = 30
SMALLEST = 6


@dataclass(frozen=True, eq=False)
class Task:
    """One target with its pool, its images in the pool, its opening image and what is held out."""

    label: str
    is_large: bool
    pool_rows: Integers
    target_rows: Integers
    opening_rows: Integers
    test_rows: Integers


def main() -> None:
    """Replay every variant on every target and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--targets", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    index = open_index(options.index)
    with options.labels.open(newline="") as file:
        known = {int(row["image_id"]): row["label"] for row in csv.DictReader(file)}
    labels = np.array([known[image_id] for image_id in index.image_ids.tolist()])
    for name, parts in WITHOUT_A_PART.items():
        STRATEGIES[name] = replace(STRATEGIES["rarefind"], **parts)
    names = [*COMPARED, *WITHOUT_A_PART]
    values: dict[str, list[list[float]]] = {name: [] for name in names}
    tasks: list[Task] = []
    for seed in range(1, options.seeds + 1):
        for task in draw_tasks(labels, seed, options.targets):
            tasks.append(task)
            for name in names:
                values[name].append(measure(index, labels, task, name, seed))
            print(".", end="", file=sys.stderr, flush=True)
    targets = np.array([task.label for task in tasks])
    is_large = np.array([task.is_large for task in tasks])
    for heading, chosen in (("Rare targets", ~is_large), ("Large targets", is_large)):
        if chosen.any():
            print(f"\n{heading}: {len(np.unique(targets[chosen]))}, {chosen.sum()} runs each")
            print_table(
                {name: np.array(rows)[chosen] for name, rows in values.items()}, targets[chosen]
            )
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["strategy", "target", "large", *MEASURES])
            for name in names:
                for task, row in zip(tasks, values[name], strict=True):
                    writer.writerow([name, task.label, int(task.is_large), *row])


def draw_tasks(labels: NDArray[np.str_], seed: int, most: int) -> Iterator[Task]:
    """At most `most` labels as targets, the same for every seed, and alike for every variant."""
    rng = np.random.default_rng([seed, 99])
    names, counts = np.unique(labels, return_counts=True)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in names:
        rows = np.flatnonzero(labels == label)
        is_test[rng.choice(rows, int(0.3 * len(rows)), replace=False)] = True
    drawn = np.random.default_rng(7).permutation(names[counts >= SMALLEST])[:most]
    for label in drawn.tolist():
        target_rows = np.flatnonzero((labels == label) & ~is_test)
        is_large = len(target_rows) > LARGE
        yield Task(
            label,
            is_large,
            np.flatnonzero(~is_test),
            target_rows,
            rng.choice(target_rows, 1),
            np.flatnonzero(is_test),
        )
        if is_large:
            kept = np.sort(rng.choice(target_rows, KEPT, replace=False))
            kept_out = rng.choice(
                np.flatnonzero((labels == label) & is_test), KEPT // 2, replace=False
            )
            in_pool, held_out = ~is_test, is_test.copy()
            in_pool[labels == label], held_out[labels == label] = False, False
            in_pool[kept], held_out[kept_out] = True, True
            yield Task(
                label,
                False,
                np.flatnonzero(in_pool),
                kept,
                rng.choice(kept, 1),
                np.flatnonzero(held_out),
            )


def measure(
    index: VectorIndex, labels: NDArray[np.str_], task: Task, strategy: str, seed: int
) -> list[float]:
    """MEASURES of one replay; F1 and AP are NaN with fewer than two target images held out."""
    played = replay(
        index,
        task.target_rows,
        opening_rows=task.opening_rows,
        strategy=strategy,
        rounds=ROUNDS,
        size=SIZE,
        seed=seed,
        pool_rows=task.pool_rows,
    )
    vectors = index.vectors[task.target_rows]
    radius = class_radius(vectors)
    found = [np.isin(task.target_rows, one.answers.positives) for one in played]
    coverages = [coverage(vectors, one, radius) for one in found]
    head = played[-1].proposal.head
    is_target = labels[task.test_rows] == task.label
    f1 = average_precision = float("nan")
    if head is not None and is_target.sum() >= 2:
        scores = index.vectors[task.test_rows] @ head.weights + head.bias
        f1 = metrics.f1(is_target, scores)
        average_precision = metrics.average_precision(is_target, scores)
    return [
        coverages[4],
        coverages[-1],
        metrics.area(np.array(coverages)),
        metrics.recall(int(found[-1].sum()), len(task.target_rows)),
        f1,
        average_precision,
    ]


def print_table(values: dict[str, NDArray[np.float64]], targets: NDArray[np.str_]) -> None:
    """Means, and under each the paired difference to pf-ma with its interval."""
    rng = np.random.default_rng(0)
    names = np.unique(targets)
    print(f"{'':34s}" + "".join(f"{name:>24s}" for name in MEASURES))
    for name, rows in values.items():
        difference = rows - values["pf-ma"]
        by_target = np.stack([np.nanmean(difference[targets == one], axis=0) for one in names])
        drawn = by_target[rng.integers(0, len(names), (2000, len(names)))]
        low, high = np.nanquantile(np.nanmean(drawn, axis=1), [0.025, 0.975], axis=0)
        cells = (
            f"{mean:8.3f} {lowest:+.3f}..{highest:+.3f}"
            for mean, lowest, highest in zip(np.nanmean(rows, axis=0), low, high, strict=True)
        )
        print(f"{name:34s}" + "".join(f"{cell:>24s}" for cell in cells))


if __name__ == "__main__":
    main()
