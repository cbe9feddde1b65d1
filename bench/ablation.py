"""What each part of the strategy `rarefind` is worth: replays with one part left out at a time.

    python -m bench.ablation INDEX_FOLDER LABELS.csv [--seeds 5] [--out FILE.csv]

LABELS.csv has the columns image_id and label. For each seed 30 % of every label are held out to
measure F1; every label is a target, opened with one image of it drawn by the seed, for 25 rounds
of 10 images. Of labels with more than 100 images in the pool 30 are kept while they are the target,
and 15 of those held out, so that every target is rare. Prints means over targets and seeds, and the
95 % interval of the paired difference to pf-ma, by resampling targets.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.engine import metrics
from app.engine.coverage import class_radius, coverage
from app.engine.head import Head
from app.engine.index import VectorIndex, open_index
from app.engine.loop import STRATEGIES
from app.engine.replay import replay
from app.engine.strategies import ranking
from app.engine.strategies.fitting import (
    LOOSE_C,
    WITHOUT_A_NO,
    Lesson,
    fit_with_pseudo_negatives,
)

Integers = NDArray[np.int64]


def fit_loosely(lesson: Lesson) -> Head:
    """The head of `rarefind` on the answers alone, as far as they hold both classes."""
    wanted = 0 if len(lesson.negatives) else WITHOUT_A_NO
    return fit_with_pseudo_negatives(lesson, wanted, C=LOOSE_C)


WITHOUT_A_PART = {
    "rarefind, C = 10": {"fit": partial(fit_with_pseudo_negatives, wanted=100)},
    "rarefind, no pseudo-negatives": {"fit": fit_loosely},
    "rarefind, order of pf-ma": {"choose": ranking.pf_ma},
    "rarefind, half ambiguous": {"choose": ranking.adaptive},
    "pf-ma with pseudo-negatives": {
        "choose": ranking.pf_ma,
        "fit": partial(fit_with_pseudo_negatives, wanted=100),
    },
}
COMPARED = ["pf-ma", "most-positive", "most-ambiguous", "adaptive", "rarefind"]
MEASURES = ("coverage@5", "coverage@25", "area", "recall@25", "F1@25", "AP@25")
ROUNDS = 25
SIZE = 10


@dataclass(frozen=True, eq=False)
class Task:
    """One target with its pool, its images in the pool, its opening image and what is held out."""

    label: str
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
    targets: list[str] = []
    for seed in range(1, options.seeds + 1):
        for task in draw_tasks(labels, seed):
            targets.append(task.label)
            for name in names:
                values[name].append(measure(index, labels, task, name, seed))
            print(".", end="", file=sys.stderr, flush=True)
    print_table({name: np.array(rows) for name, rows in values.items()}, np.array(targets))
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["strategy", "target", *MEASURES])
            for name in names:
                for target, row in zip(targets, values[name], strict=True):
                    writer.writerow([name, target, *row])


def draw_tasks(labels: NDArray[np.str_], seed: int) -> Iterator[Task]:
    """Every label as a rare target; the same draws for every variant."""
    rng = np.random.default_rng([seed, 99])
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        is_test[rng.choice(rows, int(0.3 * len(rows)), replace=False)] = True
    for label in np.unique(labels):
        in_pool = ~is_test
        held_out = is_test.copy()
        target_rows = np.flatnonzero((labels == label) & ~is_test)
        if len(target_rows) > 100:
            kept = np.sort(rng.choice(target_rows, 30, replace=False))
            in_pool[np.setdiff1d(target_rows, kept)] = False
            target_rows = kept
        test_targets = np.flatnonzero(is_test & (labels == label))
        if len(test_targets) > 15 and len(target_rows) == 30:
            held_out[rng.choice(test_targets, len(test_targets) - 15, replace=False)] = False
        yield Task(
            str(label),
            np.flatnonzero(in_pool),
            target_rows,
            rng.choice(target_rows, 1),
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
    print(f"{'':32s}" + "".join(f"{name:>24s}" for name in MEASURES))
    for name, rows in values.items():
        difference = rows - values["pf-ma"]
        by_target = np.stack([np.nanmean(difference[targets == one], axis=0) for one in names])
        drawn = by_target[rng.integers(0, len(names), (2000, len(names)))]
        low, high = np.nanquantile(np.nanmean(drawn, axis=1), [0.025, 0.975], axis=0)
        cells = (
            f"{mean:8.3f} {lowest:+.3f}..{highest:+.3f}"
            for mean, lowest, highest in zip(np.nanmean(rows, axis=0), low, high, strict=True)
        )
        print(f"{name:32s}" + "".join(f"{cell:>24s}" for cell in cells))


if __name__ == "__main__":
    main()
