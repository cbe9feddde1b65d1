"""FAISS files that find candidates; the index computes their scores from its vectors.

`index.faiss` holds every vector in 8 bits a number. Up to 300,000 images each is looked at; beyond,
the file sorts them into lists by k-means and only the lists near a query are. An index too large to
score every image in a round (`compress`) keeps `index.faiss` without lists, to be read only where
it must be, and has a second file, `narrow.faiss`: the numbers along the 128 directions in which the
collection varies most, in 8 bits, in lists. A round then goes down three steps: the best 8,192 by
those directions among the likely lists; of these the best by all directions in 8 bits; of these the
exact scores. Where more than a quarter of the 8,192 are predicted positive, the images around the
boundary are not among them, and one pass over `index.faiss` finds them.

How many lists are looked into is measured while building, against exact scores.

This is the only importer of faiss.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from app.engine.head import fit_head
from app.engine.mapped import let_go
from app.engine.parts import pick_parts

FAISS = "index.faiss"
NARROW = "narrow.faiss"
DIRECTIONS = "directions.npy"  # (d, 128) orthonormal columns
SAMPLE = "sample.npy"
EXHAUSTIVE_ROWS = 300_000  # a look at every row takes some 20 ms up to here
POINTS_PER_LIST = 64  # that k-means learns the lists from
KMEANS_ROUNDS = 6  # at a million images more of them moved recall by less than its noise
LEAST_RECALL = 0.99
RECALL_QUERIES, RECALL_NEAREST = 64, 50
CHUNK_ROWS = 65_536  # 128 MiB at 512 dimensions: what is in memory at once while building
MOST_ON_GPU = 2_048  # neighbours that FAISS finds at once on a GPU
KEPT_DIRECTIONS = 128
SAMPLE_ROWS = 65_536  # evenly spaced, in a file of their own: 134 MB at 512 dimensions
CANDIDATES = 8_192
SLACK = 32  # rows more than asked for: 8 bits may order them otherwise
LINE_SLACK = 200  # the same around the boundary, where they often lie closer together
HEADS, HEAD_YES, HEAD_NO, HEAD_FAR = 16, 4, 9, 100  # that the lists are tuned on
TOP, LINE = 300, 12  # rows of each part that these are asked for
LEAST_AGREEMENT = 0.98
EVERYTHING = -3e38
READ_BYTES = 8_388_608

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Tuning:
    """What was built, why, and what it finds: goes into the manifest under the same names.

    Of the lists `faiss_probes` are looked into (0: there are none). `faiss_recall` is the share of
    the 50 nearest images found for 64 of the collection's own. `ranks_all`: every image can be
    scored in a round; if not, `agreement` is the share of the images that an exact ranking offers
    to a strategy and that this one offers too, over 16 heads.
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
    _narrow: "_Narrow | None"
    _probes: int
    _gpu_lock: Lock = field(default_factory=Lock)

    @property
    def memory_bytes(self) -> int:
        """What of the files comes to be in memory."""
        narrow = 0 if self._narrow is None else int(self._narrow.lists.d) + 8
        return int(self._every.ntotal) * (int(self._every.d) + narrow)

    def find_nearest(self, queries: Floats, count: int, rows: Integers | None) -> Integers:
        """Rows (q, count) that are probably the nearest to `queries` (q, d), among `rows` if given.

        `count` is at most the number of allowed rows.
        """
        if self._narrow is not None:
            return np.stack([self._find_by_steps(query, count, rows) for query in queries])
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
        """Rows (m,), ascending, that probably hold, by score x·w + b and without the `closed` ones,
        the `top` highest, the `line` lowest at or above 0 and the `line` highest below 0.

        Among `rows` if given. Only where not every image is ranked.
        """
        narrow = self._get_narrow()
        if rows is not None and len(rows) <= CANDIDATES:
            found, is_whole = rows, True
        else:
            count = min(CANDIDATES + len(closed), self._every.ntotal if rows is None else len(rows))
            found, is_whole = narrow.find(weights, count, rows), False
        scores = self._score(found, weights) + np.float32(bias)
        if line and not is_whole and np.count_nonzero(scores >= 0) > CANDIDATES // 4:
            found, scores = self._pass_over(weights, self._tell_edge(weights, bias, line), rows)
            scores = scores + np.float32(bias)
        is_open = ~np.isin(found, closed)
        found, scores = found[is_open], scores[is_open]
        picked: Integers = np.sort(
            found[pick_parts(scores, top=top + SLACK, line=line + LINE_SLACK if line else 0)]
        )
        return picked

    def score_all(self, weights: Floats) -> Floats:
        """x·w of every row (n,) float32, to the rounding of 8 bits, by one pass."""
        rows, products = self._pass_over(weights, EVERYTHING, None)
        scores = np.empty(self._every.ntotal, np.float32)
        scores[rows] = products
        return scores

    def _get_narrow(self) -> "_Narrow":
        if self._narrow is None:
            raise ValueError("this index ranks every image")
        return self._narrow

    def _find_by_steps(self, query: Floats, count: int, rows: Integers | None) -> Integers:
        most = self._every.ntotal if rows is None else len(rows)
        wanted = min(most, max(CANDIDATES, 2 * count))
        found = self._get_narrow().find(query, wanted, rows)
        if len(found) < count:  # too few in these lists: look into all
            found = self._get_narrow().find(query, wanted, np.arange(most))
        products = self._score(found, query)
        best: Integers = found[np.argpartition(-products, count - 1)[:count]]
        return best

    def _score(self, rows: Integers, weights: Floats) -> Floats:
        """x·w of some rows (k,), to the rounding of 8 bits."""
        scores: Floats = self._every.sa_decode(self._codes[rows]) @ weights.astype(np.float32)
        return scores

    def _pass_over(
        self, weights: Floats, above: float, rows: Integers | None
    ) -> tuple[Integers, Floats]:
        """Rows with x·w > `above`, ascending, and their x·w: two threads, half of the rows each."""
        library: Any = faiss
        count = self._every.ntotal
        query = np.ascontiguousarray(weights[np.newaxis], np.float32)
        allowed = None if rows is None else _select(count, rows)

        def look(part: tuple[int, int]) -> tuple[Floats, Integers]:
            chosen = library.IDSelectorRange(*part)
            if allowed is not None:
                chosen = library.IDSelectorAnd(chosen, allowed)
            parameters = library.SearchParameters(sel=chosen)
            _, products, found = self._every.range_search(query, above, params=parameters)
            return products, found

        parts = [(0, count // 2), (count // 2, count)]
        with ThreadPoolExecutor(len(parts)) as threads:
            halves = list(threads.map(look, parts))
        found = np.concatenate([half[1] for half in halves])
        return found, np.concatenate([half[0] for half in halves])

    def _tell_edge(self, weights: Floats, bias: float, line: int) -> float:
        """A product that some `line` rows under the boundary are above, told by the sample."""
        sample = self._get_narrow().sample
        scores = sample @ weights.astype(np.float32) + np.float32(bias)
        under = np.sort(scores[scores < 0])[::-1]
        place = max(16, 4 * (line + LINE_SLACK) * len(sample) // self._every.ntotal)
        return float(under[place]) - bias if place < len(under) else EVERYTHING

    @cached_property
    def _codes(self) -> NDArray[np.uint8]:
        """The 8-bit numbers of `index.faiss`, (n, d), where they lie."""
        size = self._every.codes.size()
        codes: NDArray[np.uint8] = faiss.rev_swig_ptr(self._every.codes.data(), size)
        return codes.reshape(self._every.ntotal, -1)

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
class _Narrow:
    """The rows along their most varied directions, in lists."""

    lists: Any
    directions: Floats  # (d, e) orthonormal columns
    sample: Floats  # (s, d) evenly spaced rows
    probes: int

    @cached_property
    def centroids(self) -> Floats:
        """Of the lists, (l, e)."""
        centroids: Floats = self.lists.quantizer.reconstruct_n(0, self.lists.nlist)
        return centroids

    def find(self, weights: Floats, count: int, rows: Integers | None) -> Integers:
        """Up to `count` rows of the highest product with `weights`, in no order."""
        library: Any = faiss
        query = np.ascontiguousarray(weights.astype(np.float32) @ self.directions)[np.newaxis]
        products = self.centroids @ query[0]
        # Rows that are not allowed are passed over quickly: then every list can be looked into.
        probes = self.probes if rows is None else len(products)
        likely = np.argpartition(-products, probes - 1)[:probes].astype(np.int64)
        chosen = None if rows is None else _select(self.lists.ntotal, rows)
        parameters = library.SearchParametersIVF(nprobe=probes, sel=chosen)
        distances = np.empty((1, count), np.float32)
        found = np.empty((1, count), np.int64)
        nearest = np.ascontiguousarray(products[likely])
        self.lists.search_preassigned_c(
            1,
            faiss.swig_ptr(query),
            count,
            faiss.swig_ptr(likely),
            faiss.swig_ptr(nearest),
            faiss.swig_ptr(distances),
            faiss.swig_ptr(found),
            False,
            parameters,
        )
        held: Integers = found[0][found[0] >= 0]
        return held


def build_searcher(
    folder: Path, vectors: Floats, mean: Floats, *, compress: bool
) -> tuple[FaissSearcher, Tuning]:
    """Write the FAISS files of `vectors` (n, d) float32 unit rows into `folder` and measure them.

    `mean` (d,) of them. `compress`: not every image will be scored in a round.
    """
    if not compress:
        every, kind, why = _make_searchable(vectors)
        probes, recall = _tune(every, vectors)
        _write(every, folder / FAISS)
        return FaissSearcher(every, None, probes), Tuning(kind, why, probes, recall, True, None)
    count, dimension = vectors.shape
    let_go(vectors, 0, count)
    sample = np.asarray(vectors[evenly(count, SAMPLE_ROWS)])
    np.save(folder / SAMPLE, sample)
    covariance = np.cov((sample - mean).T.astype(np.float64))
    kept = min(KEPT_DIRECTIONS, dimension)
    directions = np.linalg.eigh(np.atleast_2d(covariance))[1][:, -kept:].astype(np.float32)
    np.save(folder / DIRECTIONS, directions)
    every = _make_flat(dimension)
    every.train(sample)
    lists = _make_narrow(vectors, directions)
    for start, chunk in _pass_by(vectors):
        every.add(chunk)
        along = chunk @ directions
        lists.add_with_ids(along, np.arange(start, start + len(chunk)))
    _write(every, folder / FAISS)
    _write(lists, folder / NARROW)
    kind = f"pca{kept}-ivf{lists.nlist}-sq8-ip"
    why = (
        f"{count:,} images: too many to score each in a round. The likely ones are found by the "
        f"{kept} directions in which the collection varies most, in {lists.nlist:,} lists, then by "
        "all of them in 8 bits a number, then exactly."
    )
    return _tune_narrow(every, lists, directions, sample, vectors, mean, kind, why)


def open_searcher(folder: Path, *, probes: int, ranks_all: bool) -> FaissSearcher:
    """Open the FAISS files in `folder`; `probes` and `ranks_all` as the manifest says.

    Raises OSError, ValueError or RuntimeError when one can't be read.
    """
    every = faiss.read_index(str(folder / FAISS), faiss.IO_FLAG_MMAP_IFC)
    if ranks_all:
        return FaissSearcher(every, None, probes)
    for name in (FAISS, NARROW):  # page by page, in the order of rounds, it would take minutes
        _have_read(folder / name)
    lists = faiss.read_index(str(folder / NARROW), faiss.IO_FLAG_MMAP_IFC)
    directions = np.load(folder / DIRECTIONS)
    sample = np.asarray(np.load(folder / SAMPLE, mmap_mode="r"))
    if directions.shape != (every.d, lists.d) or lists.ntotal != every.ntotal:
        raise ValueError(f"{NARROW} or {DIRECTIONS} is of another shape than {FAISS}")
    return FaissSearcher(every, _ready(lists, directions, sample, probes), 0)


def _have_read(path: Path) -> None:
    """Read a file through in the background, so that it is in the system's memory."""

    def read() -> None:
        with suppress(OSError), path.open("rb", buffering=0) as file:
            while file.read(READ_BYTES):
                pass

    Thread(target=read, daemon=True).start()


def shape_of(searcher: FaissSearcher) -> tuple[int, int]:
    """How many rows the files hold, and of how many numbers."""
    return int(searcher._every.ntotal), int(searcher._every.d)


def evenly(count: int, most: int) -> Integers:
    """At most `most` of `count` rows, evenly spaced."""
    wanted = min(count, most)
    return np.arange(wanted) * count // wanted


def _ready(lists: Any, directions: Floats, sample: Floats, probes: int) -> _Narrow:
    lists.parallel_mode = 1  # the lists of one query are shared out over the cores
    return _Narrow(lists, directions, sample, probes)


def _write(index: Any, path: Path) -> None:
    library: Any = faiss  # its types do not know all of it
    with path.open("wb") as file:  # to a full disk FAISS itself writes half a file
        library.write_index(index, library.PyCallbackIOWriter(file.write))


def _select(count: int, rows: Integers) -> Any:
    """What lets FAISS see these rows only."""
    library: Any = faiss
    is_allowed = np.zeros(count, dtype=bool)
    is_allowed[rows] = True
    return library.IDSelectorBitmap(np.packbits(is_allowed, bitorder="little"))


def _find_in_lists(
    searchable: Any, queries: Floats, count: int, probes: int, rows: Integers | None
) -> Integers:
    """Rows (q, count) that are probably the nearest, among `rows` if given."""
    library: Any = faiss  # its own annotations leave out what its Python layer adds
    selector = None if rows is None else _select(searchable.ntotal, rows)
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


def _make_narrow(vectors: Floats, directions: Floats) -> Any:
    """Empty lists of what lies close together along the directions."""
    count, kept = len(vectors), directions.shape[1]
    nlist = max(1, round(2 * count**0.5))
    quantizer = faiss.IndexFlatL2(kept)  # by products all that is far out would be in a few lists
    lists: Any = faiss.IndexIVFScalarQuantizer(
        quantizer, kept, nlist, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    _learn_lists(lists, faiss.IndexFlatL2(kept))
    lists.cp.spherical = False
    lists.train(np.asarray(vectors[evenly(count, POINTS_PER_LIST * nlist)]) @ directions)
    return lists


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


def _tune_narrow(
    every: Any,
    lists: Any,
    directions: Floats,
    sample: Floats,
    vectors: Floats,
    mean: Floats,
    kind: str,
    why: str,
) -> tuple[FaissSearcher, Tuning]:
    """Look into as many lists as the agreement needs, at most all, and measure on the way."""
    heads = _make_heads(sample, mean)
    exact = {line: _rank_exactly(heads, vectors, line) for line in (0, LINE)}
    probes = max(1, lists.nlist // 16)
    while True:
        searcher = FaissSearcher(every, _ready(lists, directions, sample, probes), 0)
        # What lies around the boundary deep among the images is found without the lists.
        if _agree(searcher, heads, exact[0], 0) >= LEAST_AGREEMENT or probes >= lists.nlist:
            break
        probes = min(round(1.5 * probes) + 1, lists.nlist)
    agreement = _agree(searcher, heads, exact[LINE], LINE)
    queries = np.asarray(vectors[evenly(len(vectors), RECALL_QUERIES)])
    k = min(RECALL_NEAREST, len(vectors))
    found = searcher.find_nearest(queries, min(2 * k + 100, len(vectors)), None)
    kth = _tell_kth(queries, _pass_by(vectors), k)
    recall = _tell_recall(found, queries, vectors, kth, k)
    return searcher, Tuning(kind, why, probes, recall, False, agreement)


def _agree(
    searcher: FaissSearcher, heads: list[tuple[Floats, float]], exact: list[Integers], line: int
) -> float:
    """The share of the exact rows that are found, over all heads."""
    nothing = np.empty(0, np.int64)
    shares = []
    for (weights, bias), rows in zip(heads, exact, strict=True):
        found = searcher.find_ranked(weights, bias, top=TOP, line=line, closed=nothing, rows=None)
        shares.append(np.isin(rows, found).mean())
    return float(np.mean(shares))


def _make_heads(sample: Floats, mean: Floats) -> list[tuple[Floats, float]]:
    """Heads as searches have them in an early round: some neighbours are yes, the next ones no."""
    heads = []
    for row in evenly(len(sample), HEADS):
        order = np.argsort(-(sample @ sample[row]), kind="stable")
        head = fit_head(
            sample[order[:HEAD_YES]],
            sample[order[HEAD_YES : HEAD_YES + HEAD_NO]],
            pseudo_negatives=sample[order[::-1][evenly(len(order) // 2, HEAD_FAR)]],
            centre=mean,
            C=30.0,
        )
        heads.append((head.weights, head.bias))
    return heads


def _rank_exactly(heads: list[tuple[Floats, float]], vectors: Floats, line: int) -> list[Integers]:
    """The rows that an exact ranking offers for each head."""
    weights = np.stack([head[0] for head in heads])
    biases = np.array([head[1] for head in heads], np.float32)[:, np.newaxis]
    kept = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in heads]
    for start, chunk in _pass_by(vectors):
        scores = weights @ chunk.T + biases
        rows = np.arange(start, start + len(chunk))
        for place, so_far in enumerate(kept):
            own_rows = np.concatenate([so_far[0], rows])
            own_scores = np.concatenate([so_far[1], scores[place]])
            best = pick_parts(own_scores, top=TOP, line=line)
            kept[place] = own_rows[best], own_scores[best]
    return [rows for rows, _ in kept]
