"""Replays: searches run against known labels, to learn which strategy finds more, and sooner.

An oracle is read and checked, targets are chosen, runs are played (one for each target, strategy
and seed; finished ones are kept in the replay's folder), and their rounds written to `rounds.csv`.
Definitions and columns: docs/evaluation.md. No server and no database is needed once the oracle is
read; `replay_summary` makes figures of the rounds, `replay_report` a page.
"""

import csv
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from app import engine
from app.adjusting import DEFAULT_STRATEGY, NEAR_ANSWERS
from app.engine.coverage import class_radius, coverage, find_modes, mode_coverage
from app.engine.index import VectorIndex, open_index, read_manifest
from app.engine.loop import STRATEGIES, UnknownStrategy, Value
from app.engine.metrics import average_precision, f1, recall
from app.engine.replay import ReplayRound, ask_oracle, hold_out, replay
from app.engine.stop_replay import replay_stops
from app.engine.stopping import STOP_RULES, Goal, UnknownStopRule, get_stop_rule
from app.engine.strategies import StrategyNeedsAllScores, check_reach, get_strategy
from app.errors import BadInput, NotFound, RarefindError
from app.oracle import Oracle, count_of, name_some
from app.reading import start_worker

RIVAL = "pf-ma"
ALL = "all"
FEW_TARGETS = 20  # that are all named where one is not known; of more the nearest
MOST_OFFERED = 3
USUAL_SIZES = (10, 200)  # images of a target: rare, and enough of them to measure
# Source: Z. Liu et al., "Large-scale long-tailed recognition in an open world", CVPR 2019.
TAIL_BELOW, HEAD_ABOVE = 20, 100
MOST_HELD_OUT = 0.9
BANDS = ("head", "middle", "tail")

USUAL_GOALS = {"recall": 0.9, "coverage": 0.8, "positives": 20.0}

RUNS, ROUNDS, STOPS, MANIFEST = "runs", "rounds.csv", "stops.csv", "manifest.json"
HELD_OUT = "held_out.csv"
TRUTH = "truth.json"  # the image ids of each target, whatever becomes of the labels
KEPT = "kept.json"  # those that the filter kept, whatever becomes of tables and clocks
KEPT_IMAGES = "which images it looks at"
EVENTS = "which images are of one event"
OPENING_STREAM = 2  # random numbers of the opening, apart from those of rounds and oracle
LETTERS = {int(Value.YES): "y", int(Value.NO): "n", int(Value.UNSURE): "u"}

Integers = NDArray[np.int64]
Progress = Callable[[int, int], None]


class AnotherReplay(RarefindError):
    """The folder holds a replay of other settings or another truth: its runs can't be gone on with.

    `differing` says of what, in words.
    """

    status = 409
    title = "That folder holds another replay"

    def __init__(self, out: Path, differing: Sequence[str]) -> None:
        self.differing = differing
        super().__init__(
            f"The finished runs in {out} were played with something else: {', '.join(differing)}. "
            "They are left as they are; choose another folder, or play what it holds."
        )


@dataclass(frozen=True)
class ReplaySettings:
    """What to play; everything but targets, strategies and seeds must agree to resume."""

    targets: tuple[str, ...]
    strategies: tuple[str, ...]
    rounds: int = 25
    size: int = 10
    open_with: int = 1
    seeds: int = 3
    oracle_error: float = 0.0
    oracle_unsure: float = 0.0
    holdout: float = 0.2
    stops: tuple[str, ...] = ()  # rules, each by name or as NAME:GOAL
    where: tuple[str, ...] = ()  # the filter, as KEY=VALUE
    each_image: bool = False  # of a group is asked about, as if none were known


@dataclass(frozen=True, eq=False)
class Run:
    """One search to replay: everything a worker process needs, but for the vectors."""

    index_folder: Path
    collection: str
    target: str
    target_rows: Integers
    strategy: str
    seed: int
    settings: ReplaySettings
    groups: Integers | None
    kept_rows: Integers | None = None


@dataclass(frozen=True, kw_only=True)
class RoundRow:
    """One line of rounds.csv; NaN is an empty cell. Counts and shares are after the round.

    The last three are about events: groups, where there are some, else images. Of the target's, an
    event counts as found with the first of its images.
    """

    collection: str
    target: str
    n_target: int
    band: str
    strategy: str
    seed: int
    round: int
    answers: int
    positives: int
    yes_in_round: int
    recall: float
    coverage: float
    mode_coverage: float
    f1: float
    average_precision: float
    fit_ms: float
    select_ms: float
    n_target_events: int = 0  # 0 in replays of before events were counted
    positive_events: int = 0
    event_recall: float = float("nan")


@dataclass(frozen=True, kw_only=True)
class ServerRoundRow(RoundRow):
    """A round played through the API: also what the server took, and what the client waited."""

    proposing_ms: float
    wait_ms: float


@dataclass(frozen=True)
class StopRow:
    """One line of stops.csv: where a rule stopped in a run, or the last round if it did not."""

    collection: str
    target: str
    n_target: int
    band: str
    strategy: str
    seed: int
    rule: str
    goal: float
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


@dataclass(frozen=True)
class PlayedRun:
    """A finished run: its lines of rounds.csv and stops.csv, and what was shown."""

    target: str
    strategy: str
    seed: int
    opening: list[int]  # image ids
    rows: list[RoundRow]
    shown: list[list[int]]  # image ids, by round
    values: list[str]  # by round, one letter an image: y, n or u
    stops: list[StopRow] = field(default_factory=list)  # in the order of the settings


# --- What to play -------------------------------------------------------------------------------


def choose_targets(
    oracle: Oracle, targets: Iterable[str] = (), between: tuple[int, int] | None = None
) -> tuple[str, ...]:
    """The targets named, or all with a number of images in `between` (both ends included)."""
    named = tuple(dict.fromkeys(targets))
    if named and between:
        raise BadInput("Give either targets by name or a range of sizes, not both.")
    if named:
        return named
    least, most = between or USUAL_SIZES
    sized = tuple(name for name, rows in oracle.rows_of.items() if least <= len(rows) <= most)
    if not sized:
        sizes = sorted(len(rows) for rows in oracle.rows_of.values())
        raise BadInput(
            f"No target has {least} to {most} images. "
            + (
                f"The {len(sizes)} known ones have {sizes[0]} to {sizes[-1]}."
                if sizes
                else "No image has a label."
            )
        )
    return sized


def choose_strategies(strategies: Iterable[str]) -> tuple[str, ...]:
    """The strategies named, each once; `all` is every one, none is pf-ma and the usual one."""
    named = tuple(dict.fromkeys(strategies)) or tuple(dict.fromkeys((RIVAL, DEFAULT_STRATEGY)))
    return (*STRATEGIES, NEAR_ANSWERS) if named == (ALL,) else named


def choose_stops(stops: Iterable[str]) -> tuple[str, ...]:
    """The stop rules named, each once; `all` is every one."""
    named = tuple(dict.fromkeys(stops))
    return tuple(STOP_RULES) if named == (ALL,) else named


def read_stop(text: str) -> tuple[str, Goal]:
    """A stop rule and what it is to reach, from NAME or NAME:GOAL."""
    name, _, given = text.partition(":")
    try:
        aim = get_stop_rule(name).aim
    except UnknownStopRule as error:
        raise BadInput(
            f"There is no stop rule “{name}”. Known are: {', '.join(STOP_RULES)}."
        ) from error
    try:
        wanted = float(given) if given else USUAL_GOALS[aim]
    except ValueError as error:
        raise BadInput(f"“{given}” is no goal for “{name}”: give a number.") from error
    if aim == "positives":
        if wanted < 1 or wanted != int(wanted):
            raise BadInput(f"“{name}” wants a number of images, not {given}.")
        return name, Goal(positives=int(wanted))
    if not 0 < wanted < 1:
        raise BadInput(f"“{name}” wants a share between 0 and 1, such as {USUAL_GOALS[aim]}.")
    return name, Goal(recall=wanted) if aim == "recall" else Goal(coverage=wanted)


def check_plan(settings: ReplaySettings, *, is_grouped: bool, has_targets: bool = True) -> None:
    """Refuse what no labels could make playable, by name: before they are read."""
    _check_numbers(settings)
    for what, names in (("strategy", settings.strategies), ("target", settings.targets)):
        if not names and (what == "strategy" or has_targets):
            raise BadInput(f"There is no {what} to replay. Name at least one.")
        if not all(name.strip() for name in names):
            raise BadInput(f"The name of a {what} is empty. Leave it out, or name one.")
    for strategy in settings.strategies:
        try:
            get_strategy(strategy)
        except UnknownStrategy as error:
            raise BadInput(
                f"There is no strategy “{strategy}”. Known are: {', '.join(STRATEGIES)}."
            ) from error
    if settings.stops and is_grouped and not settings.each_image:
        raise BadInput(
            "Stop rules are replayed on images: with a group, ask about each image (--each-image)."
        )
    if settings.each_image and not is_grouped:
        raise BadInput("Each image is asked about as it is: --each-image needs a --group.")
    rules = [read_stop(text)[0] for text in settings.stops]
    if len(set(rules)) < len(rules):
        raise BadInput("Name each stop rule once.")


def check_out(out: Path) -> None:
    """Refuse a folder for results that can't be one, or holds something else."""
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file. Give a folder for the results with --out.")
    if out.exists() and not (out / MANIFEST).exists() and any(out.iterdir()):
        raise BadInput(f"{out} is not empty and holds no replay. Choose another folder.")
    above = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise BadInput(f"{out} can't be made: {above} can't be written to. Choose another folder.")


def check_replay(oracle: Oracle, settings: ReplaySettings) -> None:
    """Refuse what can't be played, by name, before any work."""
    check_plan(settings, is_grouped=oracle.groups is not None)
    unknown = [name for name in settings.targets if name not in oracle.rows_of]
    if unknown:
        raise BadInput(f"No image is labelled {name_some(unknown)}. {_offer(oracle, unknown)}")
    for name in settings.targets:
        count = len(oracle.rows_of[name])
        if count < 2:
            raise BadInput(f"“{name}” has {count_of(count, 'image')}; a target needs at least 2.")
        if any(_count_findable(oracle, name, settings, seed) < 1 for seed in range(settings.seeds)):
            raise BadInput(
                f"“{name}” has {count_of(count, 'image')}: with {settings.holdout:.0%} held out "
                f"and {settings.open_with} to open with, none is left to find."
            )


def split_pool(
    count: int,
    target_rows: Integers,
    share: float,
    seed: int,
    groups: Integers | None,
    kept_rows: Integers | None = None,
) -> tuple[Integers, Integers]:
    """The rows that are searched, and those held out to measure the head on; of `kept_rows` alone.

    Of the target's groups and of the others the same share is held out, so that a small target is
    in both parts. A group that shows the target at all goes with the target's.
    """
    rows = np.arange(count) if kept_rows is None else kept_rows
    if share == 0:
        return rows, np.empty(0, np.int64)
    own_groups = np.arange(count) if groups is None else groups
    with_target = np.isin(own_groups[rows], own_groups[target_rows])
    parts = [rows[with_target], rows[~with_target]]
    splits = [
        tuple(own[part] for part in hold_out(len(own), share, seed=seed, groups=own_groups[own]))
        for own in parts
        if len(own)
    ]
    return tuple(np.sort(np.concatenate(part)) for part in zip(*splits, strict=True))  # type: ignore[return-value]


def name_events(groups: Integers) -> Integers:
    """Groups by any numbers as events by their lowest row."""
    _, first_rows, places = np.unique(groups, return_index=True, return_inverse=True)
    events: Integers = first_rows[places]
    return events


def draw_opening(image_ids: Integers, count: int, seed: int) -> Integers:
    """The example images that open a run, from the target's images that can be found."""
    rng = np.random.default_rng([seed, 0, OPENING_STREAM])
    return rng.choice(np.sort(image_ids), count, replace=False)


def band_of(count: int) -> str:
    """The size class of a target by its number of images in the collection."""
    if count < TAIL_BELOW:
        return "tail"
    return "head" if count > HEAD_ABOVE else "middle"


# --- Playing ------------------------------------------------------------------------------------


def run_replays(
    oracle: Oracle,
    index_folder: Path,
    settings: ReplaySettings,
    out: Path,
    *,
    workers: int = 1,
    progress: Progress | None = None,
) -> list[PlayedRun]:
    """Play every run that is not finished yet, in `workers` processes; writes rounds.csv.

    The same rounds come out whatever the number of workers: each run is played alone, on one
    thread, from its own seed.
    """
    check_replay(oracle, settings)
    manifest = read_manifest(index_folder)
    for strategy in settings.strategies:
        try:
            check_reach(strategy, ranks_all=manifest.ranks_all)
        except StrategyNeedsAllScores as error:
            raise BadInput(f"{error}.") from error
    index = asdict(manifest)
    open_folder(out, describe_replay(oracle, settings, index=index, server=None))
    write_truth(out, oracle, settings.targets)
    write_held_out(out, oracle, settings)
    runs = [
        Run(
            index_folder,
            oracle.collection,
            target,
            rows,
            strategy,
            seed,
            settings,
            oracle.groups,
            oracle.kept_rows,
        )
        for target, strategy, seed in list_runs(settings)
        for rows in (oracle.rows_of[target],)
    ]
    to_play = [
        run for run in runs if not run_file(out, run.target, run.strategy, run.seed).exists()
    ]
    if progress:
        progress(len(runs) - len(to_play), len(runs))
    # Spawned, because a process that already runs threads must not be forked.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=start_worker) as pool:
        try:
            futures = [pool.submit(play_run, run) for run in to_play]
            for done, future in enumerate(as_completed(futures), len(runs) - len(to_play) + 1):
                write_run(out, future.result())
                if progress:
                    progress(done, len(runs))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return finish_replay(out, settings)


def list_runs(settings: ReplaySettings) -> Iterator[tuple[str, str, int]]:
    """Target, strategy and seed of every run, in the order of rounds.csv."""
    for target in settings.targets:
        for strategy in settings.strategies:
            for seed in range(settings.seeds):
                yield target, strategy, seed


def play_run(run: Run) -> PlayedRun:
    """Replay one search and measure every round of it."""
    with threadpool_limits(limits=1):  # more threads would add up in another order
        index = open_index(run.index_folder)
        settings = run.settings
        pool, test = split_pool(
            index.count, run.target_rows, settings.holdout, run.seed, run.groups, run.kept_rows
        )
        target_rows = run.target_rows[np.isin(run.target_rows, pool)]
        opening = draw_opening(index.image_ids[target_rows], settings.open_with, run.seed)
        events = None
        if run.groups is not None and not settings.each_image:
            events = name_events(run.groups)
        played = replay(
            index,
            run.target_rows,
            opening_rows=index.rows_of(opening),
            strategy=run.strategy,
            rounds=settings.rounds + 1,  # the last only for its head: that of the round before
            size=settings.size,
            seed=run.seed,
            oracle_error=settings.oracle_error,
            oracle_unsure=settings.oracle_unsure,
            pool_rows=None if len(pool) == index.count else pool,
            events=events,
            clock=time.perf_counter,
        )
        rows = list(_measure(run, index, target_rows, pool, test, played))
        stops = list(_try_stops(run, index, target_rows, pool, played))
    shown = played[: settings.rounds]
    return PlayedRun(
        target=run.target,
        strategy=run.strategy,
        seed=run.seed,
        opening=opening.tolist(),
        rows=rows,
        shown=[index.image_ids[one.proposal.rows].tolist() for one in shown],
        values=["".join(LETTERS[int(value)] for value in one.values) for one in shown],
        stops=stops,
    )


def describe_replay(
    oracle: Oracle, settings: ReplaySettings, *, index: dict[str, Any] | None, server: str | None
) -> dict[str, Any]:
    """What a manifest says: `index` where vectors are at hand, `server` where one is asked."""
    measured_on = "images held out" if settings.holdout else "the unanswered pool"
    return {
        "collection": oracle.collection,
        "index": index,
        "server": server,
        "f1_measured_on": measured_on if index else None,
        "settings": asdict(settings),
        "target_sizes": {name: len(oracle.rows_of[name]) for name in settings.targets},
        "bands": {
            "head": f"more than {HEAD_ABOVE} images",
            "middle": f"{TAIL_BELOW} to {HEAD_ABOVE} images",
            "tail": f"fewer than {TAIL_BELOW} images",
        },
        "oracle_sha256": oracle.sha256,
        "kept_sha256": oracle.kept_sha256,
        "images_sha256": None if index else oracle.images_sha256,  # else the index says it
        "groups_sha256": oracle.groups_sha256,
        "grouped": oracle.groups is not None,
        "engine_sha256": hash_engine(),
        "versions": {
            name: version(name) for name in ("rarefind", "numpy", "scipy", "scikit-learn")
        },
    }


def open_folder(out: Path, manifest: dict[str, Any]) -> None:
    """Make the replay's folder, or go on in it if its finished runs are of this very replay."""
    path = out / MANIFEST
    # As JSON gives it back: a tuple is a list there.
    manifest = json.loads(json.dumps(manifest))
    if path.exists():
        differing = _list_differing(manifest, read_json(path))
        if differing and any((out / RUNS).glob("*.json")):
            raise AnotherReplay(out, differing)
    else:
        check_out(out)
    (out / RUNS).mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def find_begun_vectors(out: Path) -> str | None:
    """The checksum of the vectors that finished runs were played on; None while there are none."""
    if not (out / MANIFEST).exists() or not any((out / RUNS).glob("*.json")):
        return None
    found: str | None = (read_json(out / MANIFEST)["index"] or {}).get("vectors_sha256")
    return found


def write_truth(out: Path, oracle: Oracle, targets: Iterable[str]) -> None:
    """Keep which images show the targets, and which were looked at: both may change later."""
    if oracle.kept_rows is not None:
        kept_ids = oracle.image_ids[oracle.kept_rows].tolist()
        write_atomically(out / KEPT, json.dumps(kept_ids))
    truth = {name: oracle.image_ids[oracle.rows_of[name]].tolist() for name in targets}
    write_atomically(out / TRUTH, json.dumps(truth, ensure_ascii=False))


def write_held_out(out: Path, oracle: Oracle, settings: ReplaySettings) -> None:
    """Say which images each target's runs never saw: they are the same for every strategy."""
    if not settings.holdout:
        (out / HELD_OUT).unlink(missing_ok=True)  # of a replay that was begun with some here
        return
    part = out / f".{HELD_OUT}.part"
    with part.open("w", encoding="utf-8", newline="") as file:  # a million lines, maybe
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("target", "seed", "image_id", "file"))
        for target in settings.targets:
            for seed in range(settings.seeds):
                _, test = _split(oracle, target, settings, seed)
                for row in test.tolist():
                    writer.writerow((target, seed, int(oracle.image_ids[row]), oracle.names[row]))
    part.replace(out / HELD_OUT)


def run_file(out: Path, target: str, strategy: str, seed: int) -> Path:
    """Where a finished run is kept; a target's name may hold anything, so it is also hashed."""
    readable = re.sub(r"\W+", "-", target)[:40].strip("-")
    distinct = hashlib.sha256(target.encode()).hexdigest()[:8]
    return out / RUNS / f"{readable}-{distinct}.{strategy.replace(':', '_')}.{seed}.json"


def write_run(out: Path, run: PlayedRun) -> None:
    """Keep a finished run; there is never half a file."""
    path = run_file(out, run.target, run.strategy, run.seed)
    kept = asdict(run) | {
        "rows": [_to_cells(row) for row in run.rows],
        "stops": [_to_cells(row) for row in run.stops],
    }
    write_atomically(path, json.dumps(kept, ensure_ascii=False))


def finish_replay(out: Path, settings: ReplaySettings) -> list[PlayedRun]:
    """Gather the finished runs, in order, and write rounds.csv and, with stop rules, stops.csv."""
    runs = [read_run(run_file(out, *key)) for key in list_runs(settings)]
    rows = [row for run in runs for row in run.rows]
    _write_rows(out / ROUNDS, rows, type(rows[0]) if rows else RoundRow)
    if settings.stops:
        _write_rows(out / STOPS, [row for run in runs for row in run.stops], StopRow)
    return runs


def read_replay(out: Path) -> tuple[dict[str, Any], list[PlayedRun]]:
    """Manifest and runs of a finished replay."""
    manifest = read_json(out / MANIFEST)
    settings = ReplaySettings(**manifest["settings"])
    return manifest, [read_run(run_file(out, *key)) for key in list_runs(settings)]


def read_run(path: Path) -> PlayedRun:
    """A run as it was kept."""
    kept = read_json(path)
    kind = ServerRoundRow if any("wait_ms" in row for row in kept["rows"]) else RoundRow
    rows = [kind(**_read_cells(row, kind)) for row in kept["rows"]]
    stops = [StopRow(**_read_cells(row, StopRow)) for row in kept.get("stops", [])]
    return PlayedRun(**kept | {"rows": rows, "stops": stops})


def read_json(path: Path) -> Any:
    """A file of a replay, or a sentence."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"This replay has no {path.name}: it did not end.") from error
    except ValueError as error:
        raise BadInput(f"{path} is damaged. Delete it to play it again.") from error


def write_atomically(path: Path, text: str) -> None:
    """Whole or not at all, whatever stops the process."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


# --- Measuring ----------------------------------------------------------------------------------


def _measure(
    run: Run,
    index: VectorIndex,
    target_rows: Integers,
    pool: Integers,
    test: Integers,
    played: list[ReplayRound],
) -> Iterator[RoundRow]:
    targets = index.vectors[target_rows]
    radius, modes = class_radius(targets), find_modes(targets)
    is_target = np.zeros(index.count, dtype=bool)
    is_target[run.target_rows] = True
    band = band_of(len(run.target_rows))
    own_groups = np.arange(index.count) if run.groups is None else run.groups
    event_count = len(np.unique(own_groups[target_rows]))
    row: RoundRow | None = None
    answered = 0
    for number, one in enumerate(played[: run.settings.rounds], 1):
        found = np.isin(target_rows, one.answers.positives)
        found_events = len(np.unique(own_groups[target_rows[found]]))
        answered += len(one.values)
        # The head that chose the next round is the head after this one's answers.
        head = played[number].proposal.head if number < len(played) else None
        judged = test if len(test) else np.setdiff1d(pool, one.answers.rows)
        # Without a next round there is no newer head: what the last one reached still stands.
        head_f1, head_precision = (row.f1, row.average_precision) if row else (np.nan, np.nan)
        if not is_target[judged].any():
            head_f1 = head_precision = np.nan
        elif head is not None:
            scores = index.vectors[judged] @ head.weights + np.float32(head.bias)
            head_f1 = f1(is_target[judged], scores)
            head_precision = average_precision(is_target[judged], scores)
        row = RoundRow(
            collection=run.collection,
            target=run.target,
            n_target=len(target_rows),
            band=band,
            strategy=run.strategy,
            seed=run.seed,
            round=number,
            answers=answered,
            positives=len(one.answers.positives),
            yes_in_round=int((one.values == Value.YES).sum()),
            recall=recall(int(found.sum()), len(target_rows)),
            coverage=coverage(targets, found, radius),
            mode_coverage=mode_coverage(modes, found),
            f1=head_f1,
            average_precision=head_precision,
            fit_ms=1_000 * one.proposal.fit_s,
            select_ms=1_000 * one.proposal.choose_s,
            n_target_events=event_count,
            positive_events=found_events,
            event_recall=recall(found_events, event_count),
        )
        yield row


def _try_stops(
    run: Run,
    index: VectorIndex,
    target_rows: Integers,
    pool: Integers,
    played: list[ReplayRound],
) -> Iterator[StopRow]:
    settings = run.settings
    goals = dict(read_stop(text) for text in settings.stops)
    if not goals:
        return
    is_target = np.zeros(index.count, dtype=bool)
    is_target[run.target_rows] = True

    def ask(rows: Integers, number: int) -> NDArray[np.int8]:
        return ask_oracle(
            is_target[rows],
            error=settings.oracle_error,
            unsure=settings.oracle_unsure,
            seed=run.seed,
            round_number=settings.rounds + number,  # other mistakes than in the rounds
        )

    outcomes = replay_stops(
        index,
        target_rows,
        played,
        goals,
        rounds=settings.rounds,
        opening_count=settings.open_with,
        pool_rows=pool,
        ask_oracle=ask,
        seed=run.seed,
    )
    for name, outcome in outcomes.items():
        goal = goals[name]
        yield StopRow(
            collection=run.collection,
            target=run.target,
            n_target=len(target_rows),
            band=band_of(len(run.target_rows)),
            strategy=run.strategy,
            seed=run.seed,
            rule=name,
            goal=float(getattr(goal, get_stop_rule(name).aim)),
            **asdict(outcome),
        )


def _offer(oracle: Oracle, unknown: Sequence[str]) -> str:
    """The labels that are written most like those that nothing has, or all where they are few."""
    known = {name.casefold(): name for name in oracle.rows_of}
    if len(known) <= FEW_TARGETS:
        return f"Known are: {name_some(list(oracle.rows_of), FEW_TARGETS) or 'none'}."
    like: dict[str, None] = {}
    for name in map(str.casefold, unknown):
        holding = [one for one in known if name in one]
        nearest = [*holding, *get_close_matches(name, known, n=MOST_OFFERED)]
        like |= {known[one]: None for one in list(dict.fromkeys(nearest))[:MOST_OFFERED]}
    offered = f"Written most like it: {name_some(list(like))}. " if like else ""
    return f"{offered}{len(oracle.rows_of):,} labels are known: --list-targets lists them."


def _check_numbers(settings: ReplaySettings) -> None:
    for name in ("rounds", "size", "open_with", "seeds"):
        if getattr(settings, name) < 1:
            raise BadInput(f"{name.replace('_', '-')} must be at least 1.")
    for name in ("oracle_error", "oracle_unsure"):
        if not 0 <= getattr(settings, name) <= 1:
            raise BadInput(f"{name.replace('_', '-')} is a chance: from 0 to 1.")
    if not 0 <= settings.holdout <= MOST_HELD_OUT:
        raise BadInput(f"holdout is a share of the images: from 0 to {MOST_HELD_OUT}.")


def _count_findable(oracle: Oracle, target: str, settings: ReplaySettings, seed: int) -> int:
    """Images of a target that a run can find: neither held out nor among the examples."""
    pool, _ = _split(oracle, target, settings, seed)
    return int(np.isin(oracle.rows_of[target], pool).sum()) - settings.open_with


def _split(
    oracle: Oracle, target: str, settings: ReplaySettings, seed: int
) -> tuple[Integers, Integers]:
    return split_pool(
        len(oracle.image_ids),
        oracle.rows_of[target],
        settings.holdout,
        seed,
        oracle.groups,
        oracle.kept_rows,
    )


def _write_rows(
    path: Path, rows: Sequence[RoundRow | StopRow], kind: type[RoundRow | StopRow]
) -> None:
    text = io.StringIO()
    names = [one.name for one in fields(kind)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = _to_cells(row)
        if cells.get("n_target_events") == 0:  # nobody counted: no target has none
            cells |= {"n_target_events": "", "positive_events": ""}
        writer.writerow(cells)
    write_atomically(path, text.getvalue())


def _to_cells(row: RoundRow | StopRow) -> dict[str, Any]:
    cells = asdict(row)
    for name, value in cells.items():
        if isinstance(value, bool):
            cells[name] = int(value)
        elif isinstance(value, float):
            digits = 3 if name.endswith("_ms") else 6
            cells[name] = "" if np.isnan(value) else f"{value:.{digits}f}"
    return cells


def _read_cells(cells: dict[str, Any], kind: type[RoundRow | StopRow]) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    for one in fields(kind):
        if one.type is float:
            numbers[one.name] = float(cells.get(one.name) or "nan")
        elif one.type is bool:
            numbers[one.name] = bool(cells[one.name])
    return cells | numbers


def _list_differing(manifest: dict[str, Any], earlier: dict[str, Any]) -> list[str]:
    """What a replay that was begun goes by otherwise now, in words."""
    if "images_sha256" not in earlier:  # begun before that was told
        manifest = manifest | {"images_sha256": None}
    now, before = _what_must_agree(manifest), _what_must_agree(earlier)
    differing = {name for name in now | before if now.get(name) != before.get(name)}
    if "labels" in differing:
        # Once the checksum of labels was one of images and events, too, where these were chosen.
        was_one = "kept_sha256" not in earlier
        if was_one and (
            manifest["kept_sha256"]
            or manifest["grouped"]
            or earlier["grouped"]
            or earlier["settings"].get("where")
        ):
            differing -= {"labels", KEPT_IMAGES, EVENTS}
            differing.add("the version of Rarefind (it was begun by an earlier one)")
        elif KEPT_IMAGES in differing:
            differing.remove("labels")  # those of other images
    return sorted(differing)


def _what_must_agree(manifest: dict[str, Any]) -> dict[str, Any]:
    settings = {
        name.replace("_", "-"): value
        for name, value in manifest["settings"].items()
        if name not in ("targets", "strategies", "seeds")
    }
    return settings | {
        "collection": manifest["collection"],
        "index": (manifest["index"] or {}).get("vectors_sha256"),
        "labels": manifest["oracle_sha256"],
        KEPT_IMAGES: [manifest.get("kept_sha256"), manifest.get("images_sha256")],
        EVENTS: manifest.get("groups_sha256"),
        "engine": manifest["engine_sha256"],
        "version of the libraries": manifest["versions"],
        "server": manifest["server"],
    }


def hash_engine() -> str:
    """Changes with every line of the engine that could change a round."""
    code = hashlib.sha256()
    room = Path(engine.__file__).parent
    for file in sorted(room.rglob("*.py")):
        if "embedders" not in file.parts:
            code.update(file.read_bytes())
    return code.hexdigest()
