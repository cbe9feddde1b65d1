"""How often the truth is inside what is said of the images that remain, and where stop rules err.

    python -m bench.remaining INDEX_FOLDER LABELS.csv --out FOLDER [--seeds 8]

LABELS.csv has the columns image_id and label. Targets with one look are the labels, cut to 40
images, `--seeds` runs each; targets with several looks are made of three labels whose mean vectors
are least alike, 20 images of each, and opened from each of them in turn. Every target is played by
`rarefind` and `pf-ma`, 30 rounds of 10 images. After 10, 20 and 30 rounds every method says how
many are left (the samples are of 150 images, drawn then); `statements.csv` has what it said and the
truth, `stops.csv` where each stop rule stopped in the first three runs, for a goal of 90 % at 95 %
confidence, 80 % coverage, or 20 images. Prints both tables of docs/algorithms.md.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.engine import remaining
from app.engine.answers import Answers, Value
from app.engine.coverage import (
    REDRAWS,
    choose_candidates,
    class_radius,
    coverage,
    estimate_coverage,
)
from app.engine.index import VectorIndex, open_index
from app.engine.replay import ReplayRound, replay
from app.engine.stop_replay import replay_stops
from app.engine.stopping import LOOK_SIZE, SAMPLE_SIZE, STOP_RULES, Goal, plan_look

Integers = NDArray[np.int64]

ONE_LOOK, LOOK = 40, 20  # images of a target of one look, and of each look of the others
LOOKS = 3
SEVERAL = 12  # targets of several looks
ROUNDS, SIZE = 30, 10
AFTER = (10, 20, 30)  # rounds
STRATEGIES = ("rarefind", "pf-ma")
GOALS = {
    "recall": Goal(recall=0.9),
    "coverage": Goal(coverage=0.8),
    "positives": Goal(positives=20),
}


@dataclass(frozen=True, eq=False)
class Task:
    """One target of one run: what can be shown, what is sought, what opens it."""

    looks: int
    target: str
    seed: int
    pool_rows: Integers
    target_rows: Integers
    opening_rows: Integers


def main() -> None:
    """Play every target, and write what was said and what was true."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    index = open_index(options.index)
    rows_of = read_labels(index, options.labels)
    statements, stops = [], []
    for task in list_tasks(index, rows_of, options.seeds):
        for strategy in STRATEGIES:
            said, stopped = play(index, task, strategy)
            statements += said
            stops += stopped
        print(task.looks, task.target, task.seed, flush=True)
        write_csv(options.out / "statements.csv", statements)
        write_csv(options.out / "stops.csv", stops)
    print_statements(statements)
    print_stops(stops)


def read_labels(index: VectorIndex, path: Path) -> dict[str, Integers]:
    """The rows of each label."""
    rows: dict[str, list[int]] = {}
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            rows.setdefault(line["label"], []).append(int(line["image_id"]))
    return {
        label: np.sort(index.rows_of(np.array(ids)))
        for label, ids in sorted(rows.items())
        if label and len(ids) > LOOK
    }


def list_tasks(index: VectorIndex, rows_of: dict[str, Integers], seeds: int) -> Iterator[Task]:
    """Targets of one look, then of several."""
    for seed in range(seeds):
        for label, rows in rows_of.items():
            yield make_task(index, [rows], ONE_LOOK, label, seed)
    means = np.stack([index.vectors[rows].mean(axis=0) - index.mean for rows in rows_of.values()])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    alike = means @ means.T
    labels = list(rows_of)
    triples = sorted(
        combinations(range(len(labels)), LOOKS),
        key=lambda triple: max(alike[a, b] for a, b in combinations(triple, 2)),
    )
    # Far apart, and not always the same ones.
    for triple in triples[: 4 * SEVERAL : 4]:
        for seed in range(LOOKS):
            # The first look opens: each has its turn.
            turned = np.roll(triple, seed)
            parts = [rows_of[labels[i]] for i in turned]
            yield make_task(index, parts, LOOK, " + ".join(labels[i] for i in turned), seed)


def make_task(index: VectorIndex, parts: list[Integers], most: int, target: str, seed: int) -> Task:
    """Keep at most so many images of each part, take the others out of the pool."""
    rng = np.random.default_rng([seed, *map(len, parts)])
    kept = [np.sort(rng.permutation(rows)[:most]) for rows in parts]
    removed = np.setdiff1d(np.concatenate(parts), np.concatenate(kept))
    return Task(
        len(parts),
        target,
        seed,
        np.setdiff1d(np.arange(index.count), removed),
        np.sort(np.concatenate(kept)),
        rng.permutation(kept[0])[:1],
    )


def play(index: VectorIndex, task: Task, strategy: str) -> tuple[list[dict], list[dict]]:
    """One run: the lines of both files."""
    played = replay(
        index,
        task.target_rows,
        opening_rows=task.opening_rows,
        strategy=strategy,
        rounds=ROUNDS + 1,
        size=SIZE,
        seed=task.seed,
        pool_rows=task.pool_rows,
    )
    run = {"looks": task.looks, "target": task.target, "strategy": strategy, "seed": task.seed}
    said = [
        run | line
        for number in AFTER
        if number < len(played)
        for line in list_statements(index, task, played, number)
    ]
    if task.seed >= LOOKS:
        return said, []
    is_target = np.zeros(index.count, dtype=bool)
    is_target[task.target_rows] = True
    outcomes = replay_stops(
        index,
        task.target_rows,
        played,
        {name: GOALS[rule.aim] for name, rule in STOP_RULES.items()},
        rounds=ROUNDS,
        opening_count=1,
        pool_rows=task.pool_rows,
        ask_oracle=lambda rows, _: np.where(is_target[rows], Value.YES, Value.NO).astype(np.int8),
        seed=task.seed,
    )
    return said, [run | {"rule": name} | asdict(one) for name, one in outcomes.items()]


def list_statements(
    index: VectorIndex, task: Task, played: list[ReplayRound], number: int
) -> Iterator[dict]:
    """What each method says after a round, and the truth."""
    answers = played[number - 1].answers
    values = answers.values[1:]
    head = played[number].proposal.head
    unanswered = np.setdiff1d(task.pool_rows, answers.rows)
    left = len(task.target_rows) - len(answers.positives)
    next_values = np.concatenate([one.values for one in played[number : number + 5]])
    coming = float((next_values == Value.YES).mean())
    judged = [one for one in played[:number] if one.proposal.head is not None]
    if head is None or not judged:
        return
    scores = index.scores(head.weights, head.bias)[unanswered]
    calibration = remaining.calibrate(
        np.concatenate([one.proposal.scores for one in judged]),
        np.concatenate([one.values for one in judged]),
        scores,
    )
    rng = np.random.default_rng([task.seed, number])

    def answer(rows: Integers) -> Answers:
        new = np.where(np.isin(rows, task.target_rows), Value.YES, Value.NO).astype(np.int8)
        return Answers(np.concatenate([answers.rows, rows]), np.concatenate([answers.values, new]))

    by_score = remaining.plan_estimate(scores, unanswered, SAMPLE_SIZE, rng=rng)
    at_random = remaining.plan_absence(unanswered, SAMPLE_SIZE, rng=rng)
    look = plan_look(index, answers, unanswered, LOOK_SIZE, rng=rng)
    new = int(np.isin(look.rows, task.target_rows).sum())
    explored = int(np.isin(look.rows[LOOK_SIZE // 2 :], task.target_rows).sum())
    said = [
        (remaining.run_of_negatives(values), coming),
        (remaining.recent_yield(values), coming),
        (remaining.yield_curve(values, len(unanswered)), left),
        *(
            [(remaining.calibrated_sum(scores, calibration, rng=rng), left)]
            if calibration is not None
            else []
        ),
        (
            remaining.chapman(len(answers.positives), look.seen_again, new, len(unanswered)),
            left - new,
        ),
    ]
    for plan, is_certificate in ((by_score, False), (at_random, True)):
        now = answer(plan.rows)
        truth = len(task.target_rows) - len(now.positives)
        sizes = {"asked": len(plan.rows), "unanswered_count": len(unanswered) - len(plan.rows)}
        one = (
            remaining.certify_left(plan, now, **sizes)
            if is_certificate
            else remaining.estimate_left(plan, now, **sizes, rng=rng)
        )
        said.append((one, truth))
    found = np.isin(task.target_rows, answers.positives)
    common = {"rounds": number, "recall": found.mean(), "look_new": new, "explored": explored}
    for one, truth in said:
        yield common | {
            "method": one.name,
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "truth": truth,
        }
    if calibration is None:
        return
    targets = index.vectors[task.target_rows]
    covered = coverage(targets, found, class_radius(targets))
    chosen = choose_candidates(scores)
    estimate = estimate_coverage(
        index.vectors[answers.positives],
        index.vectors[unanswered[chosen.places]],
        calibration.draws(scores[chosen.places], REDRAWS, rng=rng),
        weights=chosen.weights,
        rng=rng,
    )
    yield common | {
        "method": "coverage",
        "value": estimate.coverage,
        "low": estimate.low,
        "high": estimate.high,
        "truth": covered,
    }


def print_statements(lines: list[dict]) -> None:
    """How often the truth was inside, after each number of rounds."""
    print("| | " + " | ".join(f"{name}: inside | width" for name in ("one look", "several")) + " |")
    for method in dict.fromkeys(line["method"] for line in lines):
        cells = [method]
        for looks in (1, LOOKS):
            own = [[], []]
            for number in AFTER:
                some = [
                    [float(line[name]) for name in ("low", "high", "truth")]
                    for line in lines
                    if (line["method"], int(line["looks"]), int(line["rounds"]))
                    == (method, looks, number)
                ]
                low, high, truth = np.array(some).T
                own[0].append(f"{((low - 1e-9 <= truth) & (truth <= high + 1e-9)).mean():.0%}")
                own[1].append(f"{np.median(high - low):.3g}")
            cells += [" / ".join(part) for part in own]
        print("| " + " | ".join(cells) + " |")


def print_stops(lines: list[dict]) -> None:
    """How often each rule stopped, how often that was too early, and what it cost."""
    for rule in STOP_RULES:
        cells = [rule]
        for looks in (1, LOOKS):
            own = [one for one in lines if (one["rule"], int(one["looks"])) == (rule, looks)]
            ended = [one for one in own if str(one["stopped"]) == "True"]
            wrong = sum(str(one["reached"]) != "True" for one in ended)
            cells += [f"{len(ended)} of {len(own)}", f"{wrong}" if ended else "–"]
            for name in ("recall", "answers", "beyond"):
                values = np.array([float(one[name]) for one in ended])
                values = values[np.isfinite(values)]
                form = "{:.2f}" if name == "recall" else "{:.0f}"
                cells.append(form.format(np.median(values)) if len(values) else "–")
        print("| " + " | ".join(cells) + " |")


def write_csv(path: Path, lines: list[dict]) -> None:
    """All lines so far."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
