"""One immutable index: the vectors of a collection, made by one embedder.

A folder holds `vectors.npy` (unit rows, memory-mapped), `image_ids.npy`, `mean.npy`, `metric.npz`
(app/engine/metric.py), `index.faiss` and, written last, `manifest.json`. Exact scores are one
matrix-vector product over the map. The FAISS file holds the same rows in 8 bits: a quarter of the
size, so that both files together are 1.25 times the vectors. It finds candidates for `nearest`;
their similarities are then computed exactly from the map. Up to 300,000 images every row is looked
at; beyond, rows are sorted into lists by k-means and only the lists near the query are. How many is
measured while building.

This is the only importer of faiss.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from app.engine import EngineError
from app.engine.metric import Metric, learn_metric, read_metric, write_metric

VECTORS = "vectors.npy"
IMAGE_IDS = "image_ids.npy"
MEAN = "mean.npy"
METRIC = "metric.npz"
FAISS = "index.faiss"
MANIFEST = "manifest.json"
EXHAUSTIVE_ROWS = 300_000  # a look at every row takes some 20 ms up to here
POINTS_PER_LIST = 64  # that k-means learns the lists from
KMEANS_ROUNDS = 6  # at a million images more of them moved recall by less than its noise
LEAST_RECALL = 0.99
RECALL_QUERIES, RECALL_NEAREST = 64, 50
FEW_ROWS = 10_000  # of so few allowed rows each is compared exactly
CHUNK_ROWS = 65_536  # 128 MiB at 512 dimensions: what is in memory at once while building
UNIT_TOLERANCE = 1e-3
MOST_ON_GPU = 2_048  # neighbours that FAISS finds at once on a GPU

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
    ("" where an earlier version noted none). `faiss_why` says why that kind; of its lists
    `faiss_probes` are looked into (0: it has none); `faiss_recall` is the share of the 50 nearest
    images that were found for 64 of its own (None where an earlier version did not measure it).
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


@dataclass(frozen=True, eq=False)
class VectorIndex:
    """An open index. Row `i` of `vectors` is the image `image_ids[i]`."""

    vectors: Floats  # (n, d) unit rows, read-only memory map
    image_ids: Integers  # (n,) unique, in any order
    mean: Floats  # (d,) mean vector of the collection
    manifest: Manifest
    _faiss: Any
    _metric: Metric | None  # None in folders of versions before there was one
    _gpu_lock: Lock = field(default_factory=Lock)

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

    def scores(self, weights: Floats, bias: float) -> Floats:
        """Signed score of every image, one exact pass.

        Parameters: `weights` (d,) float32 and `bias` of a head. Returns (n,) float32.
        """
        return self.vectors @ weights.astype(np.float32) + np.float32(bias)

    def similarities(self, vector: Floats) -> Floats:
        """Cosine of every image to a unit `vector` (d,). Returns (n,) float32 in -1..1."""
        return self.vectors @ vector.astype(np.float32)

    def nearest(
        self, vectors: Floats, k: int, *, rows: Integers | None = None
    ) -> tuple[Floats, Integers]:
        """The `k` images nearest to each query, nearest first, ties by row number.

        Parameters: `vectors` (q, d) float32 unit rows; `rows` (r,) the only rows allowed, or None
        for all. Returns similarities (q, k') float32 and rows (q, k') int64, where k' is `k` or the
        number of allowed rows if that is smaller.
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
        if count == allowed or (rows is not None and allowed <= FEW_ROWS):
            every = np.arange(self.count) if rows is None else rows
            own_vectors = self.vectors[every]  # read once for all queries
            found = [_best(own_vectors @ query, every, k) for query in queries]
        else:
            candidates = self._find_candidates(queries, count, rows)
            found = [
                _best(self.vectors[own] @ query, own, k)
                for query, own in zip(queries, candidates, strict=True)
            ]
        return np.stack([best[0] for best in found]), np.stack([best[1] for best in found])

    def holds(self, image_ids: Integers | list[int]) -> NDArray[np.bool_]:
        """Which of `image_ids` (k,) are here, (k,) bool; in time of k, not of the index."""
        wanted = np.asarray(image_ids, dtype=np.int64)
        order = self._rows_by_image_id
        places = np.searchsorted(self.image_ids, wanted, sorter=order)
        held: NDArray[np.bool_] = (
            self.image_ids[order[np.minimum(places, self.count - 1)]] == wanted
        )
        return held

    def rows_of(self, image_ids: Integers | list[int]) -> Integers:
        """Rows of images, in the order given: the one place that turns image ids into rows.

        Parameters: `image_ids` (k,), repeats allowed. Returns (k,) int64. Raises UnknownImages,
        which names those that are not here (the first ten, and how many more).
        """
        wanted = np.asarray(image_ids, dtype=np.int64)
        order = self._rows_by_image_id
        places = np.searchsorted(self.image_ids, wanted, sorter=order)
        rows = order[np.minimum(places, self.count - 1)]
        unknown = wanted[self.image_ids[rows] != wanted]
        if len(unknown):
            shown = ", ".join(map(str, unknown[:10]))
            more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
            raise UnknownImages(f"not in this index: image {shown}{more}")
        return rows

    def _find_candidates(self, queries: Floats, count: int, rows: Integers | None) -> Integers:
        if rows is None and count <= MOST_ON_GPU:
            with self._gpu_lock:  # one search at a time uses a GPU's memory
                found = None if self._on_gpu is None else self._on_gpu.search(queries, count)[1]
            if found is not None and (found >= 0).all():
                candidates: Integers = found
                return candidates
        return _find_candidates(self._faiss, queries, count, self.manifest.faiss_probes, rows)

    @cached_property
    def _on_gpu(self) -> Any:
        """A copy of the lists on the first GPU, or None: made when it is first needed.

        FAISS has no exhaustive index in 8 bits for GPUs, and no search among given rows there.
        """
        if not self.manifest.faiss_probes or not faiss.get_num_gpus():
            return None
        library: Any = faiss  # the package for the CPU has no GPU in it
        try:
            copied = library.index_cpu_to_gpu(library.StandardGpuResources(), 0, self._faiss)
        except RuntimeError:  # its memory is too small
            return None
        copied.nprobe = self.manifest.faiss_probes
        return copied

    @cached_property
    def _rows_by_image_id(self) -> Integers:
        return np.argsort(self.image_ids, kind="stable").astype(np.int64)


def build_index(
    folder: Path, *, vectors: Floats, image_ids: Integers, embedder: str, revision: str
) -> VectorIndex:
    """Write an index into an existing `folder` and open it.

    Parameters: `vectors` (n, d) float32 unit rows; when it is a memory map of `folder/vectors.npy`
    it is used where it is, otherwise written there. `image_ids` (n,) unique. The manifest is
    written last, so that a folder with one is whole.
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
    searchable, kind, why = _make_searchable(mapped)
    probes, recall = _tune(searchable, mapped)
    library: Any = faiss  # its types do not know all of it
    with (folder / FAISS).open("wb") as file:  # to a full disk FAISS itself writes half a file
        library.write_index(searchable, library.PyCallbackIOWriter(file.write))
    manifest = Manifest(
        embedder=embedder,
        revision=revision,
        dimension=int(mapped.shape[1]),
        count=len(mapped),
        faiss=kind,
        vectors_sha256=_sha256(path),
        image_ids_sha256=_sha256(folder / IMAGE_IDS),
        made_by=f"rarefind {version('rarefind')}",
        faiss_why=why,
        faiss_probes=probes,
        faiss_recall=recall,
        metric_sha256=_sha256(folder / METRIC),
    )
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    return open_index(folder)


def open_index(folder: Path, *, verify: bool = False) -> VectorIndex:
    """Open an index without reading its vectors (they are memory-mapped).

    `verify` reads everything and compares checksums. Raises IndexIncomplete without a manifest,
    IndexDamaged when a file is missing, unreadable or not what the manifest says.
    """
    manifest = read_manifest(folder)
    try:
        vectors = np.asarray(np.load(folder / VECTORS, mmap_mode="r"))
        image_ids = np.load(folder / IMAGE_IDS)
        mean = np.load(folder / MEAN)
        metric = read_metric(folder / METRIC, mean) if (folder / METRIC).exists() else None
        searchable = faiss.read_index(str(folder / FAISS), faiss.IO_FLAG_MMAP_IFC)
    except (OSError, ValueError, EOFError, RuntimeError) as problem:
        raise IndexDamaged(f"index {folder.name} cannot be read: {problem}") from problem
    shape = (manifest.count, manifest.dimension)
    expected = {
        VECTORS: vectors.shape == shape and vectors.dtype == np.float32,
        IMAGE_IDS: image_ids.shape == shape[:1] and image_ids.dtype == np.int64,
        MEAN: mean.shape == shape[1:] and mean.dtype == np.float32,
        FAISS: (searchable.ntotal, searchable.d) == shape,
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
    return VectorIndex(vectors, image_ids, mean, manifest, searchable, metric)


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


def _find_candidates(
    searchable: Any, queries: Floats, count: int, probes: int, rows: Integers | None
) -> Integers:
    """Rows (q, count) that are probably the nearest, among `rows` if given."""
    library: Any = faiss  # its own annotations leave out what its Python layer adds
    selector = None
    if rows is not None:
        is_allowed = np.zeros(searchable.ntotal, dtype=bool)
        is_allowed[rows] = True
        selector = library.IDSelectorBitmap(np.packbits(is_allowed, bitorder="little"))
    if not probes:
        parameters = library.SearchParameters(sel=selector)
        found: Integers = searchable.search(queries, count, params=parameters)[1]
        return found
    parameters = library.SearchParametersIVF(nprobe=probes, sel=selector)
    found = searchable.search(queries, count, params=parameters)[1]
    if (found < 0).any():  # too few allowed rows in these lists: look into all
        return _find_candidates(searchable, queries, count, searchable.nlist, rows)
    return found


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


def _make_searchable(vectors: Floats) -> tuple[Any, str, str]:
    """The FAISS index of the vectors, its kind, and why that kind, as a sentence."""
    count, dimension = vectors.shape
    searchable: Any
    if count <= EXHAUSTIVE_ROWS:
        kind = "sq8-ip"
        why = f"{count:,} images: each can be looked at, in 8 bits a number."
        searchable = faiss.IndexScalarQuantizer(
            dimension, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        searchable.train(vectors)  # the range of each dimension, read from the map
    else:
        lists = round(2 * count**0.5)
        kind = f"ivf{lists}-sq8-ip"
        why = (
            f"{count:,} images: sorted into {lists:,} lists of similar ones, in 8 bits a number, "
            "to look into the likely lists only."
        )
        searchable = faiss.index_factory(dimension, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        searchable.cp.niter = KMEANS_ROUNDS
        searchable.cp.max_points_per_centroid = POINTS_PER_LIST
        if faiss.get_num_gpus():
            flat = faiss.IndexFlatIP(dimension)
            searchable.clustering_index = faiss.index_cpu_to_all_gpus(flat)
        wanted = min(count, POINTS_PER_LIST * lists)
        searchable.train(np.asarray(vectors[np.arange(wanted) * count // wanted]))
    for chunk in _chunks(vectors):
        searchable.add(chunk)
    return searchable, kind, why


def _tune(searchable: Any, vectors: Floats) -> tuple[int, float]:
    """How many lists to look into (0: there are none), and the recall that this gives."""
    wanted = min(RECALL_QUERIES, len(vectors))
    k = min(RECALL_NEAREST, len(vectors))
    queries = np.asarray(vectors[np.arange(wanted) * len(vectors) // wanted])
    nearest = np.empty((wanted, 0), np.float32)
    for chunk in _chunks(vectors):
        nearest = np.concatenate([nearest, queries @ chunk.T], axis=1)
        nearest = np.partition(nearest, -min(k, nearest.shape[1]), axis=1)[:, -k:]
    # Any image as near as the k-th is right: of equal ones it does not matter which is found.
    kth = nearest.min(axis=1, keepdims=True) - 1e-6
    lists = getattr(searchable, "nlist", 0)
    probes = min(8, lists)
    while True:
        count = min(2 * k + 100, len(vectors))
        found = _find_candidates(searchable, queries, count, probes, None)
        similarities = np.einsum("qcd,qd->qc", vectors[found], queries)
        recall = float(np.minimum((similarities >= kth).sum(axis=1), k).mean() / k)
        if recall >= LEAST_RECALL or probes >= lists:
            return probes, recall
        probes = min(2 * probes, lists)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
