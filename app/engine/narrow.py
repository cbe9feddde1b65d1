"""The first look at a large collection: every image, along a few directions, in 4 bits a number.

The directions are those in which the collection varies most. Along each of them 16 levels are
learnt by k-means, and FAISS adds up, for 32 images at once, what each level is worth to a head:
some three times as fast as numbers in 8 bits, and half of their memory. The files, `narrow-0.faiss`
to `narrow-7.faiss`, hold successive rows, so that threads can share the work; they are mapped, and
all processes of a machine read the same pages.

What this look gets wrong (the other directions, and the rounding to levels) is known from a sample
of rows, and decides how many images go on to a closer look.
"""

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from app.engine.parts import evenly

NARROW = tuple(f"narrow-{part}.faiss" for part in range(8))  # no more threads get work from memory
DIRECTIONS = "directions.npy"  # (d, e) orthonormal columns
SAMPLE = "sample.npy"
KEPT_DIRECTIONS = 128
BITS = 4
LEVELS = 2**BITS
LEAST_TRAINED = 39 * LEVELS  # rows, or FAISS warns
SAMPLE_ROWS = 65_536  # evenly spaced, in a file of their own: 134 MB at 512 dimensions
TOGETHER = 32  # rows that FAISS looks at in one go: a part is filled up to a multiple
BYTES_PER_THREAD = 268_435_456  # some 30 ms
REST_ROWS = 4_096  # of the sample, that tell what this look leaves out
REST_SPREADS = 2.5  # standard deviations of that, by which a row near the boundary may be off
LINE_SLACK = 200  # rows around the boundary more than asked for: they often lie close together
EVERYTHING = -3e38

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Allowed:
    """The rows that may be found."""

    is_allowed: NDArray[np.bool_]  # (n,)
    count: int


@dataclass(frozen=True, eq=False)
class Narrow:
    """The rows of an index along their most varied directions."""

    parts: tuple[Any, ...]
    directions: Floats  # (d, e) orthonormal columns
    sample: Floats  # (s, d) evenly spaced rows

    @property
    def count(self) -> int:
        """Rows."""
        return sum(int(part.ntotal) for part in self.parts)

    @property
    def memory_bytes(self) -> int:
        """What comes to be in memory."""
        return self.count * (int(self.parts[0].code_size) + 8)  # and the number of the row

    @cached_property
    def _along(self) -> Floats:
        """Every second row of the sample along the directions as this look sees it, (s / 2, e)."""
        levels = self.parts[0].pq
        seen: Floats = levels.decode(levels.compute_codes(self.sample[::2] @ self.directions))
        return seen

    @cached_property
    def _rest(self) -> tuple[Floats, Floats]:
        """What this look leaves out of the vectors: its mean (d,) and covariance (d, d)."""
        some = evenly(len(self._along), REST_ROWS)
        rest = self.sample[::2][some] - self._along[some] @ self.directions.T
        covariance: Floats = np.atleast_2d(np.cov(rest.T)).astype(np.float32)
        return rest.mean(axis=0), covariance

    @cached_property
    def _levels(self) -> Floats:
        """The levels along each direction, (e, 16)."""
        levels: Floats = faiss.vector_to_array(self.parts[0].pq.centroids)
        return levels.reshape(self.directions.shape[1], LEVELS)

    def tell_least(
        self, weights: Floats, count: int, edge: float | None, allowed: Allowed | None
    ) -> tuple[float, int]:
        """A product along the directions that some rows are above, as the sample tells.

        Parameters: `weights` (d,) float32; `count` of the allowed rows that are to be above it; if
        an `edge` is given, also those that may be around it by all directions; `allowed` rows, None
        for all. Returns the product and how many rows are above it.
        Source: docs/scale.md, "The shortlist".
        """
        turned = weights @ self.directions
        products = self._along @ turned
        if allowed is not None:
            rows = evenly(len(allowed.is_allowed), SAMPLE_ROWS)[::2]
            products = products[allowed.is_allowed[rows]]
        if not len(products):
            return EVERYTHING, self.count
        per_row = self.count / len(self._along)
        place = min(round(count / per_row), len(products) - 1)
        above = float(np.partition(products, -1 - place)[-1 - place])
        if edge is not None:
            mean, covariance = self._rest
            # FAISS rounds what levels are worth to 255 steps of the widest direction.
            step = float((np.abs(turned) * np.ptp(self._levels, axis=1)).max()) / 255
            variance = float(weights @ covariance @ weights) + len(turned) * step**2 / 12
            lowest = edge - float(mean @ weights) - REST_SPREADS * math.sqrt(max(0.0, variance))
            above = min(above, step_under(products, lowest, per_row, LINE_SLACK))
        return above, round(per_row * np.count_nonzero(products > above))

    def find(self, weights: Floats, above: float, allowed: Allowed | None) -> Integers:
        """Allowed rows of a product along the directions `above` that, (k,) int64, ascending."""
        turned = weights @ self.directions
        query = np.ascontiguousarray(turned)[np.newaxis]
        worth = self._levels * turned[:, np.newaxis]
        lowest, highest = float(worth.min(axis=1).sum()), float(worth.max(axis=1).sum())
        if above >= highest:
            return np.empty(0, np.int64)
        # FAISS counts in 16 bits from the lowest product there can be; less would wrap around.
        above = max(above, lowest + (highest - lowest) / 2**16)

        def look(part: Any) -> Integers:
            rows: Integers = part.range_search(query, above)[2]
            return rows[rows >= 0]  # the others fill the part up

        size = self.count * int(self.parts[0].code_size)
        threads = min(len(self.parts), os.cpu_count() or 1, 1 + size // BYTES_PER_THREAD)
        if threads == 1:
            found = [look(part) for part in self.parts]
        else:
            with ThreadPoolExecutor(threads) as pool:
                found = list(pool.map(look, self.parts))
        rows = np.concatenate(found)
        return rows if allowed is None else rows[allowed.is_allowed[rows]]


def step_under(products: Floats, edge: float, per_row: float, count: int) -> float:
    """A product that, of rows under the `edge`, more than `count` are above, as told by a sample of
    one in `per_row` rows.
    """
    under = products[products < edge]
    place = max(16, math.ceil(8 * count / per_row))
    return float(np.partition(under, -1 - place)[-1 - place]) if place < len(under) else EVERYTHING


def build_narrow(
    folder: Path, sample: Floats, mean: Floats, chunks: Iterator[tuple[int, Floats]], count: int
) -> Narrow:
    """Write the files into `folder`.

    Parameters: `sample` (s, d) evenly spaced of the `count` unit rows; their `mean` (d,); all of
    them as `chunks`: number of the first row, and rows (k, d).
    """
    np.save(folder / SAMPLE, sample)
    kept = min(KEPT_DIRECTIONS, len(mean))
    covariance = np.atleast_2d(np.cov((sample - mean).T.astype(np.float64)))
    directions = np.linalg.eigh(covariance)[1][:, -kept:].astype(np.float32)
    np.save(folder / DIRECTIONS, directions)
    along = sample @ directions
    empty = _make_part(kept)
    empty.train(np.resize(along, (max(len(along), LEAST_TRAINED), kept)))
    parts = [faiss.clone_index(empty) for _ in NARROW]
    edges = [count * part // len(parts) for part in range(len(parts) + 1)]
    for start, chunk in chunks:
        turned = chunk @ directions
        rows = np.arange(start, start + len(chunk))
        for part, low, high in zip(parts, edges, edges[1:], strict=False):
            own = slice(max(low - start, 0), max(high - start, 0))
            if len(rows[own]):
                part.add_with_ids(turned[own], rows[own])
    for name, part in zip(NARROW, parts, strict=True):
        _fill_up(part)
        write_file(part, folder / name)
    return Narrow(tuple(parts), directions, sample)


def open_narrow(folder: Path) -> Narrow:
    """Open the files in `folder`. Raises OSError, ValueError or RuntimeError if one is damaged."""
    parts = tuple(faiss.read_index(str(folder / name), faiss.IO_FLAG_MMAP_IFC) for name in NARROW)
    directions = np.load(folder / DIRECTIONS)
    sample = np.asarray(np.load(folder / SAMPLE, mmap_mode="r"))
    shape = sample.shape[1], parts[0].d
    if directions.shape != shape or not all(hasattr(part, "pq") for part in parts):
        raise ValueError(f"{NARROW[0]} or {DIRECTIONS} is not what is needed")
    return Narrow(parts, directions, sample)


def write_file(index: Any, path: Path) -> None:
    """Write a FAISS index; raises OSError when the disk is full."""
    library: Any = faiss  # its types do not know all of it
    with path.open("wb") as file:  # to a full disk FAISS itself writes half a file
        library.write_index(index, library.PyCallbackIOWriter(file.write))


def _make_part(kept: int) -> Any:
    """An empty index with one list, as FAISS looks at ranges of products in lists only."""
    library: Any = faiss
    nowhere = library.IndexFlatIP(kept)
    nowhere.add(np.zeros((1, kept), np.float32))
    part = library.IndexIVFPQFastScan(nowhere, kept, 1, kept, BITS, faiss.METRIC_INNER_PRODUCT)
    part.own_fields = True
    nowhere.this.disown()
    part.by_residual = False
    return part


def _fill_up(part: Any) -> None:
    """Let a part hold its rows in lists that can be mapped: FAISS's own for 4 bits can't."""
    library: Any = faiss
    own = library.downcast_InvertedLists(part.invlists)
    size = own.list_size(0)
    if not size:
        return
    filled = -(-size // TOGETHER) * TOGETHER
    rows = np.full(filled, -1, np.int64)
    rows[:size] = faiss.rev_swig_ptr(own.get_ids(0), size)
    codes = faiss.rev_swig_ptr(own.get_codes(0), filled * part.code_size)
    lists = library.ArrayInvertedLists(1, part.code_size)
    lists.add_entries(0, filled, faiss.swig_ptr(rows), faiss.swig_ptr(codes))
    part.replace_invlists(lists, True)
    lists.this.disown()
