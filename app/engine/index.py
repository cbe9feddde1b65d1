"""One immutable index: the vectors of a collection, made by one embedder.

A folder holds `vectors.npy` (unit rows, memory-mapped), `image_ids.npy`, `mean.npy`, `metric.npz`
(app/engine/metric.py), the files of its searcher and, written last, `manifest.json`. Exact scores
are one matrix-vector product over the map. The searcher (app/engine/faiss_searcher.py) finds
candidates by smaller files; their similarities and scores are then computed exactly from the map.

Where there are too many images to score each in a round (`ranks_all` is false), a round is told a
shortlist instead: the images that a strategy can choose by score.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.engine import EngineError
from app.engine.faiss_searcher import (
    EXHAUSTIVE_ROWS,
    FAISS,
    build_searcher,
    open_searcher,
    shape_of,
)
from app.engine.mapped import have_read, read_ahead, read_singly
from app.engine.metric import Metric, learn_metric, read_metric, write_metric
from app.engine.narrow import NARROW, SAMPLE_ROWS
from app.engine.parts import evenly, pick_parts
from app.engine.together import Passes

VECTORS = "vectors.npy"
IMAGE_IDS = "image_ids.npy"
MEAN = "mean.npy"
METRIC = "metric.npz"
MANIFEST = "manifest.json"
RANKED_ROWS = 500_000  # of as many every image is scored in a round: 40 ms at 512 dimensions
RANKED_SHARE = 0.5  # of the memory, that the vectors may take for that
FEW_ROWS = 10_000  # of so few allowed rows each is compared exactly
CHUNK_ROWS = 65_536  # 128 MiB at 512 dimensions: what is in memory at once while building
UNIT_TOLERANCE = 1e-3

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


class VectorsNotUsable(EngineError):
    """Vectors or image ids that cannot make an index."""


class IndexIncomplete(EngineError):
    """A folder without a manifest: its building has not ended."""


class IndexDamaged(EngineError):
    """Files that are missing or differ from what the manifest says."""


class UnknownImages(EngineError):
    """Image ids that this index does not hold."""


@dataclass(frozen=True)
class Manifest:
    """What an index holds and how to tell that it is whole.

    `embedder` and its `revision` made the vectors; `count` of them have `dimension` numbers each;
    `faiss` is the kind of FAISS file; then the checksums (hex) of two files, and `made_by`, the
    version of Rarefind that wrote them. `metric_sha256` is the checksum of the metric's file
    ("" where an earlier version noted none). What was measured while building is as in
    `app.engine.faiss_searcher.Tuning` (`faiss_recall` None where an earlier version did not).
    """

    embedder: str
    revision: str
    dimension: int
    count: int
    faiss: str
    vectors_sha256: str
    image_ids_sha256: str
    made_by: str
    faiss_why: str = ""
    faiss_probes: int = 0
    faiss_recall: float | None = None
    metric_sha256: str = ""
    ranks_all: bool = True
    agreement: float | None = None


class Searcher(Protocol):
    """What finds candidates; rows are numbers of vectors, and scores are left to the index."""

    @property
    def memory_bytes(self) -> int:
        """What of it comes to be in memory."""

    def find_nearest(self, queries: Floats, count: int, rows: Integers | None) -> Integers:
        """Rows (q, count) that are probably the nearest to `queries` (q, d), -1 where none is
        found; `rows` (r,) are the only ones allowed, None for all.
        """

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
        """Rows (m,), ascending, none of them `closed`, that probably hold the `top` highest scores
        x·w + b, the `line` lowest at or above 0 and the `line` highest below 0.
        """

    def score_all(self, weights: Floats) -> Floats:
        """About x·w of every row (n,)."""


@dataclass(frozen=True, eq=False)
class VectorIndex:
    """An open index. Row `i` of `vectors` is the image `image_ids[i]`."""

    vectors: Floats  # (n, d) unit rows, read-only memory map
    image_ids: Integers  # (n,) unique, in any order
    mean: Floats  # (d,) mean vector of the collection
    manifest: Manifest
    _searcher: Searcher
    _metric: Metric | None  # None in folders of versions before there was one
    _scattered: Floats | None = None  # the same map for rows here and there, if on the disk
    _passes: Passes = field(default_factory=Passes)

    @cached_property
    def metric(self) -> Metric:
        """How strategies may compare images of this collection: app/engine/metric.py."""
        return self._metric or learn_metric(self.vectors, self.mean)

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.vectors.shape[1])

    @property
    def ranks_all(self) -> bool:
        """Whether every image is scored in a round; else a round is told a shortlist."""
        return self.manifest.ranks_all

    @property
    def memory_bytes(self) -> int:
        """What comes to be in memory when rounds are proposed."""
        return self.vectors.nbytes if self.ranks_all else self._searcher.memory_bytes

    @cached_property
    def sample_rows(self) -> Integers:
        """Evenly spaced rows that stand for all, (s,) int64, ascending."""
        return evenly(self.count, SAMPLE_ROWS)

    def warm(self, folder: Path) -> None:
        """Have what rounds look at read into memory, in the background.

        Parameters: `folder` that the index was opened from. Of one that ranks all a round reads
        everything anyway.
        """
        if not self.ranks_all:
            for name in (FAISS, *NARROW, *([VECTORS] if self._scattered is None else [])):
                have_read(folder / name)

    def searched_by(self, searcher: Searcher) -> "VectorIndex":
        """The same index, whose candidates something else than its FAISS files finds."""
        manifest = replace(self.manifest, ranks_all=False, agreement=None)
        return replace(self, manifest=manifest, _searcher=searcher)

    def scores(self, weights: Floats, bias: float) -> Floats:
        """Signed score of every image, by one pass.

        Parameters: `weights` (d,) float32 and `bias` of a head. Returns (n,) float32: exact where
        the index ranks all, else to the rounding of 8 bits a number, about 0.002 of the length of
        `weights`.
        """
        if not self.ranks_all:
            return self._searcher.score_all(weights) + np.float32(bias)
        products = self._passes.multiply(self.vectors, weights.astype(np.float32))
        return products + np.float32(bias)

    def similarities(self, vector: Floats) -> Floats:
        """Cosine of every image to a unit `vector` (d,), as `scores`. Returns (n,) float32."""
        return self.scores(vector, 0.0)

    def read(self, rows: Integers) -> Floats:
        """The vectors of `rows` (k,), (k, d) float32.

        Where they don't fit in memory the disk is told of all rows first, so that it reads them
        side by side.
        """
        if self._scattered is None:
            return self.vectors[rows]
        read_ahead(self._scattered, rows)
        return self._scattered[rows]

    def shortlist(
        self,
        weights: Floats,
        bias: float,
        *,
        top: int,
        line: int,
        closed: Integers,
        rows: Integers | None = None,
    ) -> tuple[Integers, Floats]:
        """What strategies choose from by score, without scoring every image.

        The `top` images of the highest score, the `line` lowest at or above 0 and the `line`
        highest below 0, of those not `closed`, and some more: as far as they are found.
        Parameters: `weights` (d,) float32 and `bias` of a head; `closed` (c,) rows, in any order;
        `rows` (r,) the only rows allowed, ascending, or None for all. Returns rows (m,) int64,
        ascending, and their exact scores (m,) float32. The manifest's `agreement` says how much of
        it is found.
        Source: docs/scale.md, "The shortlist".
        """
        if self.ranks_all:
            allowed = np.arange(self.count) if rows is None else rows
            found = np.setdiff1d(allowed, closed)
            scores = self.scores(weights, bias)[found]
            best = pick_parts(scores, top=top, line=line)
            return found[best], scores[best]
        found = self._searcher.find_ranked(
            weights, bias, top=top, line=line, closed=closed, rows=rows
        )
        return found, self.read(found) @ weights.astype(np.float32) + np.float32(bias)

    def nearest(
        self, vectors: Floats, k: int, *, rows: Integers | None = None
    ) -> tuple[Floats, Integers]:
        """The `k` images nearest to each query, nearest first, ties by row number.

        Parameters: `vectors` (q, d) float32 unit rows; `rows` (r,) the only rows allowed, or None
        for all. Returns similarities (q, k') float32 and rows (q, k') int64, where k' is `k`, or if
        that is smaller the number of allowed rows, or of those that a vector engine finds.
        Similarities are exact. An image can be missed when more than k + 100 others lie within the
        rounding of 8 bits (about 0.002 in cosine) of the k-th, and, with more than 300,000 images,
        when it is in a list that is not looked into: the manifest says how many are missed.
        Source: candidates by the scalar quantizer and the inverted lists of M. Douze et al., "The
        Faiss library", arXiv 2401.08281.
        """
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        allowed = self.count if rows is None else len(rows)
        k = min(k, allowed)
        if k == 0 or len(queries) == 0:
            return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        count = min(allowed, 2 * k + 100)
        few = FEW_ROWS if self.ranks_all else 0
        if count == allowed or (rows is not None and allowed <= few):
            every = np.arange(self.count) if rows is None else rows
            own_vectors = self.vectors[every]  # read once for all queries
            found = [_best(own_vectors @ query, every, k) for query in queries]
        else:
            candidates = self._searcher.find_nearest(queries, count, rows)
            # A cluster may find fewer, and not as many for each query.
            k = min(k, int((candidates >= 0).sum(axis=1).min()))
            found = [
                _best(self.read(own[own >= 0]) @ query, own[own >= 0], k)
                for query, own in zip(queries, candidates, strict=True)
            ]
        return np.stack([best[0] for best in found]), np.stack([best[1] for best in found])

    def holds(self, image_ids: Integers | list[int]) -> NDArray[np.bool_]:
        """Which of `image_ids` (k,) are here, (k,) bool; in time of k, not of the index."""
        wanted = np.asarray(image_ids, dtype=np.int64)
        held: NDArray[np.bool_] = self.image_ids[self._find_rows(wanted)] == wanted
        return held

    def rows_of(self, image_ids: Integers | list[int]) -> Integers:
        """Rows of images, in the order given: the one place that turns image ids into rows.

        Parameters: `image_ids` (k,), repeats allowed. Returns (k,) int64. Raises UnknownImages,
        which names those that are not here (the first ten, and how many more).
        """
        wanted = np.asarray(image_ids, dtype=np.int64)
        rows = self._find_rows(wanted)
        unknown = wanted[self.image_ids[rows] != wanted]
        if len(unknown):
            shown = ", ".join(map(str, unknown[:10]))
            more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
            raise UnknownImages(f"not in this index: image {shown}{more}")
        return rows

    def _find_rows(self, wanted: Integers) -> Integers:
        """The rows of those of the images that are here; of others any."""
        ids, rows = self._by_image_id
        places = np.minimum(np.searchsorted(ids, wanted), self.count - 1)
        return places if rows is None else rows[places]

    @cached_property
    def _by_image_id(self) -> tuple[Integers, Integers | None]:
        """All image ids, ascending, and their rows: None where they stand in that order."""
        if (np.diff(self.image_ids) > 0).all():
            return self.image_ids, None
        order = np.argsort(self.image_ids, kind="stable").astype(np.int64)
        return self.image_ids[order], order


def build_index(
    folder: Path,
    *,
    vectors: Floats,
    image_ids: Integers,
    embedder: str,
    revision: str,
    memory_bytes: int | None = None,
) -> VectorIndex:
    """Write an index into an existing `folder` and open it.

    Parameters: `vectors` (n, d) float32 unit rows; when it is a memory map of `folder/vectors.npy`
    it is used where it is, otherwise written there. `image_ids` (n,) unique. `memory_bytes` of the
    machine: of up to 500,000 images every one is scored in a round, if their vectors take at
    most half of it; None for enough. The manifest is written last, so that a folder with one is
    whole.
    Raises VectorsNotUsable when there is none, shapes disagree, a value is not finite, a row is not
    of unit length (to 1e-3) or an image id stands twice.
    """
    image_ids = np.asarray(image_ids, dtype=np.int64)
    _check(vectors, image_ids)
    path = folder / VECTORS
    # The same file may have been opened by another path: writing it anew would cut the map off.
    if isinstance(vectors, np.memmap) and path.exists() and path.samefile(str(vectors.filename)):
        vectors.flush()
    else:
        np.save(path, np.ascontiguousarray(vectors, dtype=np.float32))
    mapped = np.asarray(np.load(path, mmap_mode="r"))
    np.save(folder / IMAGE_IDS, image_ids)
    total = sum((chunk.sum(axis=0, dtype=np.float64) for chunk in _chunks(mapped)), np.float64(0))
    mean: Floats = np.asarray(total / len(mapped), dtype=np.float32)
    np.save(folder / MEAN, mean)
    write_metric(folder / METRIC, learn_metric(mapped, mean))
    has_room = _has_room(mapped, memory_bytes)
    compress = len(mapped) > RANKED_ROWS or (len(mapped) > EXHAUSTIVE_ROWS and not has_room)
    _, tuning = build_searcher(folder, mapped, mean, compress=compress)
    manifest = Manifest(
        embedder=embedder,
        revision=revision,
        dimension=int(mapped.shape[1]),
        count=len(mapped),
        vectors_sha256=_sha256(path),
        image_ids_sha256=_sha256(folder / IMAGE_IDS),
        made_by=f"rarefind {version('rarefind')}",
        metric_sha256=_sha256(folder / METRIC),
        **asdict(tuning),
    )
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    return open_index(folder, memory_bytes=memory_bytes)


def open_index(
    folder: Path, *, verify: bool = False, memory_bytes: int | None = None
) -> VectorIndex:
    """Open an index without reading its vectors (they are memory-mapped).

    `verify` reads everything and compares checksums; `memory_bytes` of the machine, None for
    enough, says whether vectors are looked for on the disk. Raises IndexIncomplete without a
    manifest, IndexDamaged when a file is missing, unreadable or not what the manifest says.
    """
    manifest = read_manifest(folder)
    try:
        vectors = np.asarray(np.load(folder / VECTORS, mmap_mode="r"))
        image_ids = np.load(folder / IMAGE_IDS)
        mean = np.load(folder / MEAN)
        metric = read_metric(folder / METRIC, mean) if (folder / METRIC).exists() else None
        searcher = open_searcher(folder, probes=manifest.faiss_probes, ranks_all=manifest.ranks_all)
    except (OSError, ValueError, EOFError, RuntimeError) as problem:
        raise IndexDamaged(f"index {folder.name} cannot be read: {problem}") from problem
    shape = (manifest.count, manifest.dimension)
    expected = {
        VECTORS: vectors.shape == shape and vectors.dtype == np.float32,
        IMAGE_IDS: image_ids.shape == shape[:1] and image_ids.dtype == np.int64,
        MEAN: mean.shape == shape[1:] and mean.dtype == np.float32,
        FAISS: shape_of(searcher) == shape,
        METRIC: metric is not None or not manifest.metric_sha256,
    }
    if verify:
        expected[VECTORS] &= _sha256(folder / VECTORS) == manifest.vectors_sha256
        expected[IMAGE_IDS] &= _sha256(folder / IMAGE_IDS) == manifest.image_ids_sha256
        if metric is not None and manifest.metric_sha256:
            expected[METRIC] &= _sha256(folder / METRIC) == manifest.metric_sha256
    damaged = [name for name, is_as_expected in expected.items() if not is_as_expected]
    if damaged:
        raise IndexDamaged(
            f"index {folder.name}: {', '.join(damaged)} differs from its manifest; build it again"
        )
    scattered = None
    if not (manifest.ranks_all or _has_room(vectors, memory_bytes)):
        scattered = np.asarray(np.load(folder / VECTORS, mmap_mode="r"))
        read_singly(scattered)
    return VectorIndex(vectors, image_ids, mean, manifest, searcher, metric, scattered)


def _has_room(vectors: Floats, memory_bytes: int | None) -> bool:
    """Whether all vectors can stay in memory beside what else is to be there."""
    return memory_bytes is None or vectors.nbytes <= RANKED_SHARE * memory_bytes


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the index in `folder`.

    Raises IndexIncomplete when there is none, IndexDamaged when it cannot be read.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise IndexIncomplete(f"index {folder.name} has no manifest: its building has not ended")
    try:
        return Manifest(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as problem:
        raise IndexDamaged(f"index {folder.name}: manifest unreadable: {problem}") from problem


def _best(similarities: Floats, rows: Integers, k: int) -> tuple[Floats, Integers]:
    if k < len(rows):  # a partition first: only what may be among the nearest is put in order
        kth = np.partition(similarities, -k)[-k]
        near = np.flatnonzero(similarities >= kth)
        similarities, rows = similarities[near], rows[near]
    order = np.lexsort((rows, -similarities))[:k]
    return similarities[order].astype(np.float32), rows[order].astype(np.int64)


def _check(vectors: Floats, image_ids: Integers) -> None:
    if vectors.ndim != 2 or vectors.shape[0] == 0 or vectors.shape[1] == 0:
        raise VectorsNotUsable(f"no vectors to index: their shape is {vectors.shape}")
    if image_ids.shape != (len(vectors),):
        raise VectorsNotUsable(f"{len(vectors)} vectors but {image_ids.size} image ids")
    if len(np.unique(image_ids)) < len(image_ids):
        raise VectorsNotUsable("an image id stands twice")
    start = 0
    for chunk in _chunks(vectors):
        # A value that is not finite makes its row's length not finite too.
        lengths = np.linalg.norm(chunk, axis=1)
        bad = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))
        if len(bad):
            raise VectorsNotUsable(
                f"row {start + bad[0]} (image {image_ids[start + bad[0]]}) is not a unit vector: "
                f"its length is {lengths[bad[0]]:.4g}"
            )
        start += len(chunk)


def _chunks(vectors: Floats) -> Iterator[Floats]:
    for start in range(0, len(vectors), CHUNK_ROWS):
        yield np.asarray(vectors[start : start + CHUNK_ROWS])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
