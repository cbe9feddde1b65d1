"""FAISS files that find candidates; the index computes their scores from its vectors.

`index.faiss` holds every vector in 8 bits a number. Up to 300,000 images each is looked at; beyond,
the file sorts them into lists by k-means and only the lists near a query are. An index too large to
score every image in a round (`compress`) keeps `index.faiss` without lists, to be read only where
it must be, and has files for a first look along few directions (app/engine/narrow.py). A round then
goes down three steps: all images by that look; the best of them, and those that may be near the
boundary, by all directions in 8 bits; of these the best exactly. Where that would be more than one
image of twenty, one pass over `index.faiss` takes the place of the first two.

What is found that way is measured while building, against exact scores.

This and narrow.py are the only importers of faiss.
"""

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from app.engine.head import fit_head
from app.engine.mapped import let_go
from app.engine.narrow import (
    BYTES_PER_THREAD,
    EVERYTHING,
    LINE_SLACK,
    NARROW,
    SAMPLE_ROWS,
    Allowed,
    Narrow,
    build_narrow,
    open_narrow,
    step_under,
    write_file,
)
from app.engine.parts import evenly, pick_parts

FAISS = "index.faiss"
EXHAUSTIVE_ROWS = 300_000  # a look at every row takes some 20 ms up to here
POINTS_PER_LIST = 64  # that k-means learns the lists from
KMEANS_ROUNDS = 6  # at a million images more of them moved recall by less than its noise
LEAST_RECALL = 0.99
RECALL_QUERIES, RECALL_NEAREST = 64, 50
CHUNK_ROWS = 65_536  # 128 MiB at 512 dimensions: what is in memory at once while building
MOST_ON_GPU = 2_048  # neighbours that FAISS finds at once on a GPU
CANDIDATES, CANDIDATES_SHARE = 8_192, 200  # at least so many rows, and one of so many
SCATTERED_SHARE = 20  # more than one of so many rows are not read one by one
GATHERED_ROWS = 2_048  # that are read one by one before they are looked at: 1 MiB at 512 dimensions
MOST_THREADS = 8  # memory gives no more of them work
FEW_CLOSED = 1_000  # rows that are left out afterwards; of more it is told before
SLACK = 32  # rows more than asked for: 8 bits may order them otherwise
BLUR, MOST_BLURRED = 2.0, 3_000  # deviations of 8 bits; rows so near the boundary, each side
HEADS, HEAD_YES, HEAD_NO, HEAD_FAR = 16, 4, 9, 100  # that it is measured on
HEAD_ROUNDS = (1, 5, 12)
TOP, LINE = 300, 12  # rows of each part that these are asked for

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
_Ranked = tuple[Integers, Floats]  # rows and their scores

NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True)
class Tuning:
    """What was built, why, and what it finds: goes into the manifest under the same names.

    Of the lists `faiss_probes` are looked into (0: there are none). `faiss_recall` is the
    share of the 50 nearest images found for 64 of the collection's own. `ranks_all`: every image
    can be scored in a round; if not, `agreement` is the share of the images that an exact ranking
    offers to a strategy and that this one offers too, over 16 heads.
    """

    faiss: str
    faiss_why: str
    faiss_probes: int
    faiss_recall: float
    ranks_all: bool
    agreement: float | None


@dataclass(frozen=True, eq=False)
class FaissSearcher:
    """Open FAISS files of an index of n images."""

    _every: Any  # all rows, in 8 bits: flat, or in lists
    _narrow: Narrow | None
    _probes: int
    _gpu_lock: Lock = field(default_factory=Lock)

    @property
    def memory_bytes(self) -> int:
        """What of the files comes to be in memory."""
        narrow = 0 if self._narrow is None else self._narrow.memory_bytes
        return int(self._every.ntotal) * int(self._every.d) + narrow

    def find_nearest(self, queries: Floats, count: int, rows: Integers | None) -> Integers:
        """Rows that are probably the nearest to each query.

        Parameters: `queries` (q, d) float32 unit rows; `count` >= 1, at most the number of allowed
        rows; `rows` (r,) int64 ascending, the only ones allowed, None for all. Returns (q, count)
        int64, in no order.
        Source: M. Douze et al., "The Faiss library", arXiv 2401.08281.
        """
        if self._narrow is not None:
            allowed = self._allow(rows)
            return np.stack([self._find_by_steps(query, count, allowed) for query in queries])
        if rows is None and count <= MOST_ON_GPU:
            with self._gpu_lock:  # one search at a time uses a GPU's memory
                found = None if self._on_gpu is None else self._on_gpu.search(queries, count)[1]
            if found is not None and (found >= 0).all():
                candidates: Integers = found
                return candidates
        return _find_in_lists(self._every, queries, count, self._probes, rows)

    def find_ranked(
        self,
        weights: Floats,
        bias: float,
        *,
        top: int,
        line: int,
        closed: Integers,
        rows: Integers | None,
    ) -> Integers:
        """Rows that probably hold, by score x·w + b, the `top` highest, the `line` lowest at or
        above 0 and the `line` highest below 0. Only where not every image is ranked.

        Parameters: `weights` (d,) float32 and `bias` of a head; `top` and `line` >= 0; `closed`
        (c,) int64, rows to be left out, in any order; `rows` (r,) int64 ascending, the only ones
        allowed, None for all. Returns (m,) int64, ascending. Raises ValueError where every image
        is ranked.
        Source: docs/scale.md, "The shortlist".
        """
        closed = np.sort(closed)
        allowed = self._allow(rows, closed if len(closed) > FEW_CLOSED else closed[:0])
        edge = -bias if line else None
        count = self._count_candidates() + min(len(closed), FEW_CLOSED)  # they are among the best
        while True:
            found, products, is_every = self._find_candidates(weights, count, edge, allowed)
            is_open = np.append(closed, -1)[np.searchsorted(closed, found)] != found
            found, scores = found[is_open], products[is_open] + np.float32(bias)
            if is_every or len(found) >= top:
                break
            count *= 4  # nearly all that was found has an answer
        if line:
            # Where the boundary lies deep among the images, 8 bits do not tell which are nearest.
            is_blurred = np.abs(scores) < BLUR * self._wide.tell_rounding(weights)
            blurred = min(int(np.count_nonzero(is_blurred)), MOST_BLURRED)
            line += max(LINE_SLACK, blurred)
        picked: Integers = np.sort(found[pick_parts(scores, top=top + SLACK, line=line)])
        return picked

    def score_all(self, weights: Floats) -> Floats:
        """x·w of every row, to the rounding of 8 bits, by one pass.

        Parameters: `weights` (d,) float32. Returns (n,) float32.
        """
        return self._wide.pass_over(weights, EVERYTHING)[1]

    def _count_candidates(self) -> int:
        return max(CANDIDATES, int(self._every.ntotal) // CANDIDATES_SHARE)

    def _find_by_steps(self, query: Floats, count: int, allowed: Allowed | None) -> Integers:
        wanted = max(self._count_candidates(), 2 * count)
        while True:
            found, products, is_every = self._find_candidates(query, wanted, None, allowed)
            if is_every or len(found) >= count:
                break
            wanted *= 4
        best: Integers = found[np.argpartition(-products, count - 1)[:count]]
        return best

    def _find_candidates(
        self, weights: Floats, count: int, edge: float | None, allowed: Allowed | None
    ) -> tuple[Integers, Floats, bool]:
        """About `count` rows of the highest x·w and, if an `edge` is given, those around it; their
        x·w to the rounding of 8 bits; and whether these are all that are allowed.
        """
        narrow = self._get_narrow()
        # More rows than that, far from each other, take longer to read than all of them in order.
        most = self._every.ntotal // SCATTERED_SHARE
        if allowed is not None and allowed.count <= max(count, most):
            rows = np.flatnonzero(allowed.is_allowed)
            return rows, self._wide.score(rows, weights), True
        if count <= most:
            above, expected = narrow.tell_least(weights, count, edge, allowed)
            if expected <= most:
                found = narrow.find(weights, above, allowed)
                if len(found) <= 2 * most:
                    return found, self._wide.score(found, weights), False
        above = EVERYTHING
        if edge is not None and count <= most:
            above = self._tell_under(weights, edge, allowed)
        found, products = self._wide.pass_over(weights, above)
        if allowed is not None:
            kept = allowed.is_allowed[found]
            found, products = found[kept], products[kept]
        return found, products, above == EVERYTHING

    def _allow(self, rows: Integers | None, closed: Integers = NOTHING) -> Allowed | None:
        """`rows` (None for all) without `closed` ones; None where that is everything."""
        if rows is None and not len(closed):
            return None
        is_allowed = np.full(self._every.ntotal, rows is None)
        if rows is not None:
            is_allowed[rows] = True
        is_allowed[closed] = False
        return Allowed(is_allowed, int(np.count_nonzero(is_allowed)))

    def _get_narrow(self) -> Narrow:
        if self._narrow is None:
            raise ValueError("this index ranks every image")
        return self._narrow

    def _tell_under(self, weights: Floats, edge: float, allowed: Allowed | None) -> float:
        """A product that enough rows between it and `edge` are above, told by the sample."""
        sample = self._get_narrow().sample
        products = sample @ weights.astype(np.float32)
        if allowed is not None:
            products = products[allowed.is_allowed[evenly(self._every.ntotal, SAMPLE_ROWS)]]
        per_row = self._every.ntotal / len(sample)
        return step_under(products, edge, per_row, LINE_SLACK + MOST_BLURRED)

    @cached_property
    def _wide(self) -> "_Codes":
        return _Codes(self._every)

    @cached_property
    def _on_gpu(self) -> Any:
        """A copy of the lists on the first GPU, or None: made when it is first needed.

        FAISS has no exhaustive index in 8 bits for GPUs, and no search among given rows there.
        """
        if not self._probes or not faiss.get_num_gpus():
            return None
        library: Any = faiss  # the package for the CPU has no GPU in it
        try:
            copied = library.index_cpu_to_gpu(library.StandardGpuResources(), 0, self._every)
        except RuntimeError:  # its memory is too small
            return None
        copied.nprobe = self._probes
        return copied


@dataclass(frozen=True, eq=False)
class _Codes:
    """The rows of a FAISS index without lists, in 8 bits a number."""

    index: Any

    @property
    def count(self) -> int:
        return int(self.index.ntotal)

    @property
    def width(self) -> int:
        return int(self.index.d)

    def tell_rounding(self, weights: Floats) -> float:
        """The standard deviation of what 8 bits change in x·w."""
        # A number lies anywhere in its step: the variance is a twelfth of the step's square.
        return float(np.linalg.norm(weights * self._steps)) / 12**0.5

    @cached_property
    def _steps(self) -> Floats:
        """How far apart the 256 numbers are that there are of each dimension, (d,)."""
        spans = faiss.vector_to_array(self.index.sq.trained)[self.width :]
        return np.asarray(spans / 255, np.float32)

    def score(self, rows: Integers, weights: Floats) -> Floats:
        """x·w of some rows (k,), to the rounding of 8 bits."""
        scores = np.empty(len(rows), np.float32)
        held = np.empty((min(len(rows), GATHERED_ROWS), self.width), np.uint8)
        for start in range(0, len(rows), GATHERED_ROWS):
            some = rows[start : start + GATHERED_ROWS]
            codes = np.take(self._codes, some, axis=0, out=held[: len(some)], mode="clip")
            scores[start : start + len(some)] = self.scan(codes, weights, EVERYTHING)[1]
        return scores

    def pass_over(self, weights: Floats, above: float) -> tuple[Integers, Floats]:
        """Rows with x·w > `above`, ascending, and their x·w: each thread some of the rows."""
        threads = min(MOST_THREADS, os.cpu_count() or 1, 1 + self._codes.size // BYTES_PER_THREAD)
        bounds = [len(self._codes) * part // threads for part in range(threads + 1)]

        def look(span: tuple[int, int]) -> tuple[Integers, Floats]:
            found, products = self.scan(self._codes[slice(*span)], weights, above)
            return found + span[0], products

        if threads == 1:
            return look((0, len(self._codes)))
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(look, itertools.pairwise(bounds)))
        found = np.concatenate([part[0] for part in parts])
        return found, np.concatenate([part[1] for part in parts])

    def scan(
        self, codes: NDArray[np.uint8], weights: Floats, above: float
    ) -> tuple[Integers, Floats]:
        """Places of `codes` (k, d), contiguous, with x·w > `above`, ascending, and their x·w.

        FAISS's own range search over such an index takes twelve times as long as this part of it.
        """
        library: Any = faiss
        query = np.ascontiguousarray(weights, np.float32)
        try:
            scanner = self._scanners.pop()
        except IndexError:
            scanner = self.index.sq.select_InvertedListScanner(
                faiss.METRIC_INNER_PRODUCT, None, True, None, False
            )
            scanner.set_list(0, 0.0)
        found = library.RangeSearchResult(1)
        part = library.RangeSearchPartialResult(found)
        scanner.set_query(faiss.swig_ptr(query))
        scanner.scan_codes_range(
            len(codes), faiss.swig_ptr(codes), None, float(above), part.new_result(0)
        )
        part.finalize()
        self._scanners.append(scanner)
        count = int(faiss.rev_swig_ptr(found.lims, 2)[1])
        rows: Integers = faiss.rev_swig_ptr(found.labels, count).copy()
        return rows, faiss.rev_swig_ptr(found.distances, count).copy()

    @cached_property
    def _scanners(self) -> list[Any]:
        """Those that nobody uses now: from Python none can be deleted, so they are used again."""
        return []

    @cached_property
    def _codes(self) -> NDArray[np.uint8]:
        """The 8-bit numbers, (n, d), where they lie."""
        codes: NDArray[np.uint8] = faiss.rev_swig_ptr(
            self.index.codes.data(), self.index.codes.size()
        )
        return codes.reshape(self.count, -1)


def build_searcher(
    folder: Path, vectors: Floats, mean: Floats, *, compress: bool
) -> tuple[FaissSearcher, Tuning]:
    """Write the FAISS files of `vectors` (n, d) float32 unit rows into `folder` and measure them.

    `mean` (d,) of them. `compress`: not every image will be scored in a round.
    """
    if not compress:
        every, kind, why = _make_searchable(vectors)
        probes, recall = _tune(every, vectors)
        write_file(every, folder / FAISS)
        return FaissSearcher(every, None, probes), Tuning(kind, why, probes, recall, True, None)
    count, dimension = vectors.shape
    let_go(vectors, 0, count)
    sample = np.asarray(vectors[evenly(count, SAMPLE_ROWS)])
    every = _make_flat(dimension)
    every.train(sample)
    narrow = build_narrow(folder, sample, mean, _add_to(every, _pass_by(vectors)), count)
    write_file(every, folder / FAISS)
    kept = narrow.directions.shape[1]
    why = (
        f"{count:,} images: too many to score each in a round. The likely ones are found by the "
        f"{kept} directions in which the collection varies most, in 4 bits a number, then by all "
        "directions in 8 bits, then exactly."
    )
    searcher = FaissSearcher(every, narrow, 0)
    return searcher, _measure(searcher, vectors, mean, f"pca{kept}-pq4-sq8-ip", why)


def open_searcher(folder: Path, *, probes: int, ranks_all: bool) -> FaissSearcher:
    """Open the FAISS files in `folder`; `probes` and `ranks_all` as the manifest says.

    Raises OSError, ValueError or RuntimeError when one can't be read.
    """
    every = faiss.read_index(str(folder / FAISS), faiss.IO_FLAG_MMAP_IFC)
    if ranks_all:
        return FaissSearcher(every, None, probes)
    narrow = open_narrow(folder)
    if (len(narrow.directions), narrow.count) != (every.d, every.ntotal):
        raise ValueError(f"{FAISS} and {NARROW[0]} are not of the same images")
    return FaissSearcher(every, narrow, 0)


def shape_of(searcher: FaissSearcher) -> tuple[int, int]:
    """How many rows the files hold, and of how many numbers."""
    return int(searcher._every.ntotal), int(searcher._every.d)


def _select(is_allowed: NDArray[np.bool_]) -> Any:
    """What lets FAISS see these rows only."""
    library: Any = faiss
    return library.IDSelectorBitmap(np.packbits(is_allowed, bitorder="little"))


def _find_in_lists(
    searchable: Any, queries: Floats, count: int, probes: int, rows: Integers | None
) -> Integers:
    """Rows (q, count) that are probably the nearest, among `rows` if given."""
    library: Any = faiss  # its own annotations leave out what its Python layer adds
    selector = None
    if rows is not None:
        is_allowed = np.zeros(searchable.ntotal, dtype=bool)
        is_allowed[rows] = True
        selector = _select(is_allowed)
    if not probes:
        parameters = library.SearchParameters(sel=selector)
        found: Integers = searchable.search(queries, count, params=parameters)[1]
        return found
    parameters = library.SearchParametersIVF(nprobe=probes, sel=selector)
    found = searchable.search(queries, count, params=parameters)[1]
    if (found < 0).any():  # too few allowed rows in these lists: look into all
        return _find_in_lists(searchable, queries, count, searchable.nlist, rows)
    return found


def _chunks(vectors: Floats) -> Iterator[tuple[int, Floats]]:
    for start in range(0, len(vectors), CHUNK_ROWS):
        yield start, np.asarray(vectors[start : start + CHUNK_ROWS])


def _pass_by(vectors: Floats) -> Iterator[tuple[int, Floats]]:
    """As `_chunks`, of vectors that are more than the memory should hold."""
    for start, chunk in _chunks(vectors):
        yield start, chunk
        let_go(vectors, start, start + len(chunk))


def _add_to(flat: Any, chunks: Iterator[tuple[int, Floats]]) -> Iterator[tuple[int, Floats]]:
    """Chunks as they pass by, each added to a flat index."""
    for start, chunk in chunks:
        flat.add(chunk)
        yield start, chunk


def _make_flat(dimension: int) -> Any:
    return faiss.IndexScalarQuantizer(
        dimension, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )


def _make_searchable(vectors: Floats) -> tuple[Any, str, str]:
    """The FAISS index of the vectors, its kind, and why that kind, as a sentence."""
    count, dimension = vectors.shape
    searchable: Any
    if count <= EXHAUSTIVE_ROWS:
        kind = "sq8-ip"
        why = f"{count:,} images: each can be looked at, in 8 bits a number."
        searchable = _make_flat(dimension)
        searchable.train(vectors)  # the range of each dimension, read from the map
    else:
        lists = round(2 * count**0.5)
        kind = f"ivf{lists}-sq8-ip"
        why = (
            f"{count:,} images: sorted into {lists:,} lists of similar ones, in 8 bits a number, "
            "to look into the likely lists only."
        )
        searchable = faiss.index_factory(dimension, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        _learn_lists(searchable, faiss.IndexFlatIP(dimension))
        searchable.train(np.asarray(vectors[evenly(count, POINTS_PER_LIST * lists)]))
    for _, chunk in _chunks(vectors):
        searchable.add(chunk)
    return searchable, kind, why


def _learn_lists(lists: Any, flat: Any) -> None:
    lists.cp.niter = KMEANS_ROUNDS
    lists.cp.max_points_per_centroid = POINTS_PER_LIST
    if faiss.get_num_gpus():
        library: Any = faiss  # the package for the CPU has no GPU in it
        lists.clustering_index = library.index_cpu_to_all_gpus(flat)


def _tune(searchable: Any, vectors: Floats) -> tuple[int, float]:
    """How many lists to look into (0: there are none), and the recall that this gives."""
    queries = np.asarray(vectors[evenly(len(vectors), RECALL_QUERIES)])
    k = min(RECALL_NEAREST, len(vectors))
    kth = _tell_kth(queries, _chunks(vectors), k)
    lists = getattr(searchable, "nlist", 0)
    probes = min(8, lists)
    while True:
        count = min(2 * k + 100, len(vectors))
        found = _find_in_lists(searchable, queries, count, probes, None)
        recall = _tell_recall(found, queries, vectors, kth, k)
        if recall >= LEAST_RECALL or probes >= lists:
            return probes, recall
        probes = min(2 * probes, lists)


def _tell_kth(queries: Floats, chunks: Iterator[tuple[int, Floats]], k: int) -> Floats:
    """The similarity of the k-th nearest to each query, (q, 1)."""
    nearest = np.empty((len(queries), 0), np.float32)
    for _, chunk in chunks:
        nearest = np.concatenate([nearest, queries @ chunk.T], axis=1)
        nearest = np.partition(nearest, -min(k, nearest.shape[1]), axis=1)[:, -k:]
    # Any image as near as the k-th is right: of equal ones it does not matter which is found.
    kth: Floats = nearest.min(axis=1, keepdims=True) - np.float32(1e-6)
    return kth


def _tell_recall(found: Integers, queries: Floats, vectors: Floats, kth: Floats, k: int) -> float:
    similarities = np.einsum("qcd,qd->qc", vectors[found], queries)
    return float(np.minimum((similarities >= kth).sum(axis=1), k).mean() / k)


def _measure(searcher: FaissSearcher, vectors: Floats, mean: Floats, kind: str, why: str) -> Tuning:
    narrow = searcher._get_narrow()
    heads = _make_heads(narrow.sample, mean)
    agreement = _agree(searcher, heads, _rank_exactly(heads, vectors))
    queries = np.asarray(vectors[evenly(len(vectors), RECALL_QUERIES)])
    k = min(RECALL_NEAREST, len(vectors))
    found = searcher.find_nearest(queries, min(2 * k + 100, len(vectors)), None)
    kth = _tell_kth(queries, _pass_by(vectors), k)
    recall = _tell_recall(found, queries, vectors, kth, k)
    return Tuning(kind, why, 0, recall, False, agreement)


def _agree(
    searcher: FaissSearcher, heads: list[tuple[Floats, float]], exact: list[_Ranked]
) -> float:
    """The share of the exact rows that are found, over all heads."""
    shares = []
    for (weights, bias), (rows, _) in zip(heads, exact, strict=True):
        found = searcher.find_ranked(weights, bias, top=TOP, line=LINE, closed=NOTHING, rows=None)
        shares.append(np.isin(rows, found).mean())
    return float(np.mean(shares))


def _make_heads(sample: Floats, mean: Floats) -> list[tuple[Floats, float]]:
    """Heads as searches have them: a few neighbours are yes, and what was shown since is no.

    A third of them after one round, five, and twelve. The later ones are harder to serve: they were
    turned away from all that is near the positives.
    """
    heads = []
    for number, row in enumerate(evenly(len(sample), HEADS)):
        order = np.argsort(-(sample @ sample[row]), kind="stable")
        far = sample[order[::-1][evenly(len(order) // 2, HEAD_FAR)]]
        is_open = np.ones(len(sample), bool)
        is_open[order[: HEAD_YES + HEAD_NO]] = False
        for _ in range(HEAD_ROUNDS[number % len(HEAD_ROUNDS)]):
            is_no = ~is_open
            is_no[order[:HEAD_YES]] = False
            head = fit_head(
                sample[order[:HEAD_YES]], sample[is_no], pseudo_negatives=far, centre=mean, C=30.0
            )
            scores = np.where(is_open, sample @ head.weights, -np.inf)
            is_open[np.argpartition(-scores, min(LINE, len(scores) - 1))[:LINE]] = False
        heads.append((head.weights, head.bias))
    return heads


def _rank_exactly(heads: list[tuple[Floats, float]], vectors: Floats) -> list[_Ranked]:
    """The rows that an exact ranking offers for each head, and their scores."""
    weights = np.stack([head[0] for head in heads])
    biases = np.array([head[1] for head in heads], np.float32)[:, np.newaxis]
    kept = [(NOTHING, np.empty(0, np.float32)) for _ in heads]
    for start, chunk in _pass_by(vectors):
        scores = weights @ chunk.T + biases
        rows = np.arange(start, start + len(chunk))
        for place, so_far in enumerate(kept):
            own_rows = np.concatenate([so_far[0], rows])
            own_scores = np.concatenate([so_far[1], scores[place]])
            best = pick_parts(own_scores, top=TOP, line=LINE)
            kept[place] = own_rows[best], own_scores[best]
    return kept
