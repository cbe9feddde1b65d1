"""Vectors that an import makes on the way, kept until an index takes them over.

One file for each collection and revision of an embedder: records of a fixed size, only ever added
to, an import's chunk at a time and before its rows are committed. They are named by the content of
their files, so that what a kill leaves over is at worst not used. What is missing, an index embeds
itself.
"""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.database import Database, is_among
from app.engine import EngineError
from app.engine.embedders import Embedder, Floats, Pixels, load_embedder, looks_at_boxes
from app.reading import ReadImage, Refusal, writing
from app.settings import Settings
from app.tables import Image

UNIT_TOLERANCE = 1e-3
AT_ONCE = 8_192  # images looked up at a time

Keys = NDArray[np.uint64]  # (n, 4): the four parts of each SHA-256
ImageIds = NDArray[np.int64]
Places = NDArray[np.int64]
WithVector = tuple[ReadImage | Refusal, Floats | None]  # and its vector, if it was made


class Embedding:
    """Makes the vectors of new images while they are imported."""

    def __init__(self, model: Embedder, path: Path, known: Keys) -> None:
        self.model = model
        self._path = path
        self._known = np.sort(known[:, 0])
        self._met: set[int] = set()

    def embed(self, reads: list[ReadImage | Refusal]) -> list[WithVector]:
        """Each file without its pixels, with the vector of what nobody has embedded yet."""
        new: dict[str, Pixels] = {}
        for read in reads:
            if isinstance(read, ReadImage) and read.pixels is not None and self._is_new(read):
                new[read.sha256] = read.pixels
        vectors: dict[str, Floats] = {}
        if new:
            self._met.update(int(sha256, 16) for sha256 in new)
            # What a model can't do, indexing tries again, and says why not.
            with suppress(RuntimeError):
                made = self.model.embed_images(np.stack(list(new.values())))
                vectors = {
                    sha256: vector
                    for sha256, vector, whole in zip(new, made, are_whole(made), strict=True)
                    if whole
                }
        return [
            (replace(read, pixels=None), vectors.get(read.sha256))
            if isinstance(read, ReadImage)
            else (read, None)
            for read in reads
        ]

    def keep(self, outcomes: list[WithVector]) -> None:
        """Have the vectors among outcomes on the disk."""
        made = {
            read.sha256: vector
            for read, vector in outcomes
            if vector is not None and isinstance(read, ReadImage)
        }
        if made:
            keep_vectors(self._path, list(made), np.stack(list(made.values())))

    def _is_new(self, read: ReadImage) -> bool:
        if int(read.sha256, 16) in self._met:
            return False
        key = make_keys([read.sha256])[0, 0]
        at = np.searchsorted(self._known, key)
        return at == len(self._known) or bool(self._known[at] != key)


def begin_embedding(
    database: Database, collection_id: int, embedder: str | None, settings: Settings
) -> Embedding | None:
    """What embeds while a collection's import goes on; None where the embedder can't be had."""
    # What detectors draw is brought after the images: then there is nothing to look at yet.
    is_known = embedder is not None and not looks_at_boxes(embedder)
    model = _load_embedder(embedder, settings) if embedder and is_known else None
    if model is None:
        return None
    with database.session() as session:
        known = make_keys(
            session.scalars(select(Image.sha256).filter_by(collection_id=collection_id)).all()
        )
    return Embedding(model, path_of(settings, collection_id, model.revision), known)


def without_vectors(reads: list[ReadImage | Refusal]) -> list[WithVector]:
    """What an import that embeds nothing makes of what was read."""
    return [(read, None) for read in reads]


def path_of(settings: Settings, collection_id: int, revision: str) -> Path:
    """Where the vectors of a collection by a revision of an embedder are kept."""
    name = hashlib.sha256(revision.encode()).hexdigest()[:16]
    return settings.home / "indexes" / f"ahead-{collection_id}-{name}"


def keep_vectors(path: Path, sha256s: Sequence[str], vectors: Floats) -> None:
    """Add the vectors (n, d) of n images, down to the disk."""
    records = np.empty(len(vectors), _record(vectors.shape[1]))
    records["key"] = make_keys(sha256s)
    records["vector"] = vectors
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.truncate(file.tell() // records.itemsize * records.itemsize)  # torn by a kill
            file.write(records.tobytes())
            file.flush()
            os.fsync(file.fileno())


def open_vectors(path: Path, dimension: int) -> Floats:
    """The vectors (n, d) that are kept, as a memory map."""
    return _open(path, dimension)["vector"]


def find_vectors(session: Session, path: Path, image_ids: ImageIds, dimension: int) -> Places:
    """For each image the row of its vector in `open_vectors`, or -1."""
    kept = _open(path, dimension)
    places = np.full(len(image_ids), -1, dtype=np.int64)
    if len(kept) == 0:
        return places
    own = np.ascontiguousarray(kept["key"])
    order = np.argsort(own[:, 0], kind="stable")
    for start in range(0, len(image_ids), AT_ONCE):
        some = image_ids[start : start + AT_ONCE].tolist()
        sha256s = dict(
            session.execute(select(Image.id, Image.sha256).where(is_among(Image.id, some))).all()
        )
        keys = make_keys([sha256s[image_id] for image_id in some])
        at = np.searchsorted(own[order, 0], keys[:, 0], side="right") - 1
        candidates = order[np.maximum(at, 0)]
        # A power cut may have left a record that is not all there.
        found = (own[candidates] == keys).all(axis=1) & are_whole(kept["vector"][candidates])
        places[start : start + len(some)] = np.where(found, candidates, -1)
    return places


def are_whole(vectors: Floats) -> NDArray[np.bool_]:
    """Which of the vectors are unit vectors."""
    whole: NDArray[np.bool_] = np.abs(np.linalg.norm(vectors, axis=1) - 1) < UNIT_TOLERANCE
    return whole


def make_keys(sha256s: Sequence[str]) -> Keys:
    """Each SHA-256 as four numbers."""
    numbers = np.frombuffer(bytes.fromhex("".join(sha256s)), dtype=">u8")
    return numbers.reshape(-1, 4).astype(np.uint64)


def _load_embedder(name: str, settings: Settings) -> Embedder | None:
    """The embedder, or None if it can't be had at once: then indexing says why, or fetches it."""
    try:
        return load_embedder(name, device=settings.device, weights_folder=settings.weights_folder)
    except (EngineError, RuntimeError):  # torch's, for a device that is not there
        return None


def _record(dimension: int) -> np.dtype[np.void]:
    return np.dtype([("key", np.uint64, (4,)), ("vector", np.float32, (dimension,))])


def _open(path: Path, dimension: int) -> NDArray[np.void]:
    record = _record(dimension)
    count = path.stat().st_size // record.itemsize if path.exists() else 0
    return np.memmap(path, record, "r", shape=(count,)) if count else np.empty(0, record)
