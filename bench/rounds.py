"""Milliseconds from answers to the next round, for each strategy, against one exact scoring pass.

Drawn vectors of 512 dimensions, 200 answers (40 yes, 160 no), rounds of 12. Then `pf-ma` and
`rarefind` on vectors without a number below 0, of 512 dimensions and of 1,280 as the bundled
embedder's, on which `rarefind` has a second head. The floor is the median time of
`VectorIndex.scores` on the same index in the same run.
"""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from app.engine.index import VectorIndex, build_index
from app.engine.loop import STRATEGIES, Answers, Opening, propose_round, round_rng

COUNTS = (10_000, 100_000)
DIMENSION, BUNDLED_DIMENSION = 512, 1_280
REPEATS = 15


def run() -> list[dict[str, Any]]:
    """Measure every strategy at every count."""
    results = []
    for count in COUNTS:
        results += measure(count, DIMENSION, [*STRATEGIES, "anchoral:pf-ma"])
        for dimension in (DIMENSION, BUNDLED_DIMENSION):
            results += measure(count, dimension, ["pf-ma", "rarefind"], unsigned=True)
    return results


def measure(
    count: int, dimension: int, strategies: list[str], *, unsigned: bool = False
) -> list[dict[str, Any]]:
    """Measure strategies on one index."""
    what = f"{count:,} vectors" + (f" >= 0, {dimension:,} numbers each" if unsigned else "")
    with tempfile.TemporaryDirectory() as folder:
        index, answers = draw_search(Path(folder), count, dimension, unsigned=unsigned)
        opening = Opening(index.vectors[answers.positives[0]], np.empty((0, dimension), np.float32))
        weights = index.vectors[0]
        floor = median_ms(lambda: index.scores(weights, 0.0))
        results = [result(f"one scoring pass, {what}", floor, floor)]
        for strategy in strategies:
            took = median_ms(
                lambda strategy=strategy: propose_round(
                    index,
                    answers,
                    opening=opening,
                    strategy=strategy,
                    size=12,
                    round_number=20,
                    rng=round_rng(1, 20),
                )
            )
            results.append(result(f"round by {strategy}, {what}", took, floor))
    return results


def draw_search(
    folder: Path, count: int, dimension: int, *, unsigned: bool
) -> tuple[VectorIndex, Answers]:
    """An index of `count` images around 200 centres, and answers about one of them."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 200, count)
    centres = rng.standard_normal((200, dimension), dtype=np.float32)
    vectors = np.lib.format.open_memmap(
        folder / "vectors.npy", "w+", np.float32, (count, dimension)
    )
    for start in range(0, count, 10_000):
        part = slice(start, min(start + 10_000, count))
        noise = rng.standard_normal((part.stop - start, dimension), dtype=np.float32)
        drawn = centres[kinds[part]] + noise
        drawn = np.maximum(drawn, 0) if unsigned else drawn
        vectors[part] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    index = build_index(
        folder, vectors=vectors, image_ids=np.arange(count), embedder="drawn", revision="1"
    )
    yes = np.flatnonzero(kinds == 0)[:40]
    no = np.flatnonzero(kinds != 0)[:160]
    values = np.repeat(np.array([1, -1], np.int8), [len(yes), len(no)])
    return index, Answers(np.concatenate([yes, no]), values)


def median_ms(do: Any) -> float:
    """Median wall time of a few calls, after one to warm up."""
    do()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        do()
        times.append(time.perf_counter() - started)
    return 1000 * median(times)


def result(name: str, value: float, floor: float) -> dict[str, Any]:
    """One line of the table that `make bench` prints."""
    return {"name": name, "value": value, "unit": "ms", "floor": floor, "ratio": value / floor}


if __name__ == "__main__":
    for line in run():
        print(f"{line['name']:65s} {line['value']:9.1f} ms {line['ratio']:7.1f} x")
