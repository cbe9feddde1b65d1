"""Images to vectors to an immutable index: `build_index`, and what opens indexes and embedders.

Vectors grow in `<home>/indexes/<id>.building`; the folder loses its ending when it is whole, and
only then the row becomes `ready`. A build that is killed loses at most one chunk: the next call
goes on with the same row.
"""

import os
import shutil
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from sqlalchemy import Cast, Integer, cast, delete, func, insert, select, update
from sqlalchemy.orm import Session

from app.database import Database
from app.engine import EngineError
from app.engine import index as engine_index
from app.engine.embedders import EMBEDDERS, Embedder, Floats, Pixels, load_embedder
from app.engine.index import VECTORS, VectorIndex, open_index
from app.errors import (
    BadInput,
    EmbedderMismatch,
    IndexNotUsable,
    NoIndexYet,
    RarefindError,
    RefusedPhoto,
    SourceNotUsable,
)
from app.importing import photo_path
from app.preparing import Original, prepare_files
from app.reading import Refusal, start_worker
from app.settings import Settings
from app.tables import Image, ImageIndex, Photo, UnreadableImage

DEFAULT_EMBEDDER = "efficientnet-lite0"
CHUNK_IMAGES = 256  # recorded at a time: what a kill can lose
CHUNK_S = 5.0  # or sooner, so that progress moves with slow embedders too
READ_IMAGES = 16  # handed to a worker at a time
COPY_ROWS = 65_536  # vectors in memory at once while copying
CRASHED = "Decoding it ended the process: it is damaged or huge."
GONE = "Its original is gone."
PLAN = "planned_ids.npy"  # the image of each row of a building folder
INDEX_LOCK = 7_273_003  # any number: the first half of the advisory lock of a running build

ImageIds = NDArray[np.int64]


def build_index(
    database: Database,
    collection_id: int,
    *,
    settings: Settings,
    embedder: str = DEFAULT_EMBEDDER,
    progress: Callable[[int, int], None] | None = None,
) -> ImageIndex:
    """Make the collection's newest index hold every image; returns its row.

    Goes on with a build that was cut off. Vectors that an earlier index has are copied. An image
    that can't be read is left out and recorded. `progress` hears images done and in all; what it
    raises leaves the build to be gone on with.
    """
    tell = progress or (lambda _done, _total: None)
    model = _load(database, collection_id, embedder, settings)
    with _claim(database, collection_id, tell):
        for find_work in (_take_up, _plan_next):
            row = find_work(database, collection_id, model, settings)
            if row is not None:
                with closing(_build(database, row, model, settings)) as done_counts:
                    for done in done_counts:
                        tell(done, row.image_count)
    with database.session() as session:
        return get_current_index(session, collection_id, embedder=embedder)


def list_unfinished_builds(database: Database) -> list[tuple[int, str]]:
    """Collection and embedder of each build whose process is gone: what `build_index` takes up."""
    with database.session() as session:
        rows = session.execute(
            select(ImageIndex.collection_id, ImageIndex.embedder)
            .filter_by(state="building")
            .distinct()
            .order_by(ImageIndex.collection_id)
        ).tuples()
        return [
            (collection_id, embedder)
            for collection_id, embedder in rows.all()
            if session.scalar(select(func.pg_try_advisory_xact_lock(*_lock_key(collection_id))))
        ]


def get_current_index(
    session: Session, collection_id: int, *, embedder: str | None = None
) -> ImageIndex:
    """The collection's newest ready index (by one embedder, or any), or NoIndexYet."""
    query = select(ImageIndex).filter_by(collection_id=collection_id, state="ready")
    if embedder is not None:
        query = query.filter_by(embedder=embedder)
    row = session.scalar(query.order_by(ImageIndex.id.desc()).limit(1))
    if row is None:
        raise NoIndexYet(
            "The images of this collection are not prepared for searching yet. "
            "Its page shows how far that is."
        )
    return row


class OpenIndexes:
    """The indexes held open; they never change, so one serves every request that needs it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: OrderedDict[int, VectorIndex] = OrderedDict()  # least recently used first
        self._lock = Lock()

    def get(self, row: ImageIndex) -> VectorIndex:
        """The index of a ready row, opened if it is not open."""
        if row.state != "ready":
            raise NoIndexYet("The images of this collection are still being prepared.")
        with self._lock:
            if row.id not in self._open:
                self._open[row.id] = self._open_folder(row)
            self._open.move_to_end(row.id)
            while len(self._open) > 1 and self._size_gb() > self._settings.open_indexes_gb:
                self._open.popitem(last=False)
            return self._open[row.id]

    def _open_folder(self, row: ImageIndex) -> VectorIndex:
        folder = _folder(self._settings, row.id)
        try:
            index = open_index(folder)
        except EngineError as error:
            raise IndexNotUsable(
                f"What was prepared for searching is damaged ({error}). Run `rarefind collection "
                "add` for this collection again: what is lost is prepared anew."
            ) from error
        if (index.manifest.embedder, index.manifest.revision) != (row.embedder, row.revision):
            raise IndexNotUsable(
                f"{folder} was made by {index.manifest.revision}, not by {row.revision} as the "
                "database says. Do database and data folder belong together?"
            )
        return index

    def _size_gb(self) -> float:
        return sum(index.vectors.nbytes for index in self._open.values()) / 1e9


class LoadedEmbedders:
    """The embedders in memory; each is loaded when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loaded: dict[str, Embedder] = {}
        self._lock = Lock()

    def get(self, row: ImageIndex) -> Embedder:
        """The embedder whose vectors fit the index, or EmbedderMismatch."""
        with self._lock:
            if row.embedder not in self._loaded:
                if row.embedder not in EMBEDDERS:
                    raise EmbedderMismatch(
                        f"The images were prepared with {row.embedder}, which this version of "
                        f"Rarefind does not have. It has {', '.join(EMBEDDERS)}."
                    )
                device = self._settings.device
                self._loaded[row.embedder] = load_embedder(row.embedder, device=device)
            embedder = self._loaded[row.embedder]
        if embedder.revision != row.revision:
            raise EmbedderMismatch(
                f"The images were prepared with {row.revision}, but {embedder.revision} is "
                "installed. Run `rarefind collection add` for the collection again, so that all "
                "its images are prepared anew."
            )
        return embedder


def embed_photo(photo: Photo, embedder: Embedder, *, settings: Settings) -> Floats:
    """The vector (d,) of an example photo."""
    file = photo_path(photo.sha256, settings=settings)
    if not file.exists():
        raise RefusedPhoto(f"The photo {photo.name} is gone from the data folder. Add it again.")
    original = Original(str(file), file.stat().st_size)
    prepared, refused = prepare_files([original], embedder.prepare, settings.max_megapixels)
    if refused:
        raise RefusedPhoto(f"{refused[0].detail} Try another photo.")
    return embedder.embed_images(prepared)[0]


# --- What there is to build ---------------------------------------------------------------------


def _load(database: Database, collection_id: int, name: str, settings: Settings) -> Embedder:
    if name in EMBEDDERS:
        return load_embedder(name, device=settings.device)
    problem = f"There is no embedder {name}. There are: {', '.join(EMBEDDERS)}."
    with database.session() as session:
        session.execute(
            update(ImageIndex)
            .filter_by(collection_id=collection_id, embedder=name, state="building")
            .values(state="failed", problem=problem)
        )
    raise BadInput(problem)


@contextmanager
def _claim(
    database: Database, collection_id: int, tell: Callable[[int, int], None]
) -> Iterator[None]:
    """Hold the collection for one build; the database lets go when this process dies.

    While another process builds, waits and passes its progress on.
    """
    key = _lock_key(collection_id)
    engine = database.bind.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        while not connection.scalar(select(func.pg_try_advisory_lock(*key))):
            counts = connection.execute(
                select(ImageIndex.done_count, ImageIndex.image_count)
                .filter_by(collection_id=collection_id, state="building")
                .order_by(ImageIndex.id.desc())
            ).first()
            if counts is not None:
                tell(counts.done_count, counts.image_count)
            time.sleep(0.5)
        try:
            yield
        finally:
            connection.execute(select(func.pg_advisory_unlock(*key)))


def _lock_key(collection_id: int) -> tuple[Cast[int], Cast[int]]:
    return cast(INDEX_LOCK, Integer), cast(collection_id, Integer)


def _take_up(
    database: Database, collection_id: int, model: Embedder, settings: Settings
) -> ImageIndex | None:
    """The row of a build that was cut off, to go on with; those nobody can finish are failed."""
    with database.session() as session:
        last_ready_id = session.scalar(_ready(collection_id, model).with_only_columns(ImageIndex.id))
        unfinished = session.scalars(
            select(ImageIndex)
            .filter_by(collection_id=collection_id, embedder=model.name)
            .where(ImageIndex.state != "ready", ImageIndex.id > (last_ready_id or 0))
            .order_by(ImageIndex.id.desc())
        ).all()
        taken_up = None
        for row in unfinished:
            if taken_up is None and row.revision == model.revision:
                taken_up = row
                row.state = "building"
                row.problem = None
            elif row.state == "building":
                row.state = "failed"
                row.problem = "Another version of the embedder is installed now."
                shutil.rmtree(_building_folder(settings, row.id), ignore_errors=True)
        return taken_up


def _plan_next(
    database: Database, collection_id: int, model: Embedder, settings: Settings
) -> ImageIndex | None:
    """The row of a new index, or None when the newest one holds all that can be read."""
    with database.session() as session:
        image_count = session.scalar(
            select(func.count()).select_from(Image).filter_by(collection_id=collection_id)
        )
        if not image_count:
            raise NoIndexYet("The collection has no images yet. Import some first.")
        if _is_complete(session, collection_id, model, settings):
            return None
        row = ImageIndex(
            collection_id=collection_id,
            embedder=model.name,
            revision=model.revision,
            dimension=model.dimension,
            state="building",
            image_count=image_count,
            done_count=0,
        )
        session.add(row)
        session.flush()
        return row


def _is_complete(
    session: Session, collection_id: int, model: Embedder, settings: Settings
) -> bool:
    previous = _find_previous(session, collection_id, model, settings)
    if previous is None:
        return False
    row, index = previous
    left_out = {
        image_id: reason == GONE and Path(file).is_file()
        for image_id, reason, file in session.execute(
            select(UnreadableImage.image_id, UnreadableImage.reason, Image.file)
            .join(Image, Image.id == UnreadableImage.image_id)
            .filter(UnreadableImage.index_id == row.id)
        ).tuples()
    }
    known = np.sort(np.concatenate([index.image_ids, np.array(list(left_out), dtype=np.int64)]))
    is_back = any(left_out.values())  # the disk that was away is connected again
    return not is_back and np.array_equal(known, _list_image_ids(session, collection_id))


def _find_previous(
    session: Session, collection_id: int, model: Embedder, settings: Settings
) -> tuple[ImageIndex, VectorIndex] | None:
    """The newest ready index of the same embedder, whole to the last byte; damaged ones fail."""
    for row in session.scalars(_ready(collection_id, model)):
        try:
            return row, open_index(_folder(settings, row.id), verify=True)
        except EngineError as error:
            row.state = "failed"
            row.problem = f"Its files are damaged: {error}"
    return None


def _list_image_ids(session: Session, collection_id: int) -> ImageIds:
    """The collection's image ids, in order."""
    query = select(Image.id).filter_by(collection_id=collection_id).order_by(Image.id)
    return np.fromiter(session.scalars(query), dtype=np.int64)
