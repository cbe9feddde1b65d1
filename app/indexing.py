"""Images to vectors to an immutable index: `build_index`, and what opens indexes and embedders.

Vectors grow in `<home>/indexes/<id>.building`; the folder loses its ending when it is whole, and
only then the row becomes `ready`. A build that is killed loses at most one chunk: the next call
goes on with the same row. Vectors that an earlier index has, or that the import made on the way
(`ahead.py`), are copied; only the files of the others are read.
"""

import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache, partial
from itertools import chain
from pathlib import Path
from threading import Lock

import numpy as np
import psutil
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from sqlalchemy import Cast, Integer, Select, bindparam, cast, delete, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import ahead
from app.database import INDEX_LOCK, Database, is_among
from app.detecting import find_areas
from app.disk import explain_disk
from app.engine import EngineError
from app.engine import combined as engine_combined
from app.engine import index as engine_index
from app.engine.embedders import (
    Embedder,
    Floats,
    Pixels,
    gather_files,
    load_embedder,
    looks_at_boxes,
)
from app.engine.embedders.weights import UnknownEmbedder, WeightsMissing
from app.engine.index import MANIFEST, VECTORS, VectorIndex, open_index, read_manifest
from app.errors import (
    BadInput,
    EmbedderMismatch,
    EmbedderNotUsable,
    IndexNotUsable,
    NoIndexYet,
    RarefindError,
    RefusedPhoto,
    SourceNotUsable,
    StoreDamaged,
)
from app.importing import photo_path
from app.preparing import GONE, WHOLE_PICTURE, Original, prepare_files
from app.reading import DAMAGED, Refusal
from app.searchers import FAISS, Searchers, fill_index, note_images
from app.settings import Settings
from app.splitting import (
    ASK_S,
    Embed,
    embed_parts,
    end_parts,
    find_start,
    gather_parts,
    plan_parts,
    remove_part_files,
)
from app.store import (
    PATIENCE_S,
    check_folder,
    delete_folders,
    fetch_file,
    fetch_files,
    fetch_folder,
    find_original,
    holds_folder,
    mark_used,
    place_original,
    put_folder,
)
from app.tables import Collection, Image, ImageIndex, Photo, UnreadableImage
from app.workers import READ_FILES, Readers, count_processes, work_through

DEFAULT_EMBEDDER = "efficientnet-lite0"
CHUNK_IMAGES = 256  # recorded at a time: what a kill can lose
CHUNK_S = 5.0  # or sooner, so that progress moves with slow embedders too
MOST_LOADED = 3  # embedders in memory: two of a combined index, and one more
COPY_ROWS = 8_192  # vectors in memory at once while copying
PLAN = "planned_ids.npy"  # the image of each row of a building folder

ImageIds = NDArray[np.int64]
CallForHelp = Callable[[ImageIndex], None]
_Prepared = list[Pixels | Refusal]


def check_embedder(name: str) -> None:
    """Refuse an embedder that there is not, before any work is done for it."""
    try:
        gather_files(name)
    except WeightsMissing:
        pass  # they may be fetched when they are needed
    except EngineError as error:
        raise BadInput(str(error)) from error


def fetch_embedder(name: str, settings: Settings) -> None:
    """Have the weights of an embedder on this machine: with a progress bar, if it takes a while."""
    try:
        gather_files(name, weights_folder=settings.weights_folder, may_fetch=True)
    except UnknownEmbedder as error:
        raise BadInput(str(error)) from error
    except EngineError as error:
        raise EmbedderNotUsable(str(error)) from error


def build_index(
    database: Database,
    collection_id: int,
    *,
    settings: Settings,
    embedder: str = DEFAULT_EMBEDDER,
    progress: Callable[[int, int], None] | None = None,
    call_for_help: CallForHelp | None = None,
) -> ImageIndex:
    """Make the collection's newest index hold every image; returns its row.

    Goes on with a build that was cut off. Vectors that an earlier index has are copied. An image
    that can't be read is left out and recorded. `progress` hears images done and in all; what it
    raises leaves the build to be gone on with, at the next start of a server unless it is a
    RarefindError: then somebody stopped it, and only a new call goes on. With `call_for_help`,
    called now and then, a large build is divided into parts that others may take, by `help_build`.
    """
    tell = progress or (lambda _done, _total: None)
    model = _load(database, collection_id, embedder, settings)
    with _claim(database, collection_id, tell):
        for find_work in (_take_up, _plan_next):
            row = find_work(database, collection_id, model, settings)
            if row is not None:
                building = _build(database, row, model, settings, call_for_help)
                with closing(building) as done_counts:
                    for done in done_counts:
                        try:
                            tell(done, row.image_count)
                        except RarefindError as stopped:
                            _update_row(database, row, state="failed", problem=str(stopped))
                            raise
        with database.session() as session:
            current = get_current_index(session, collection_id, embedder=embedder)
        for done in fill_index(database, current, _folder(settings, current.id), settings):
            tell(done, current.image_count)
    return current


def help_build(
    database: Database,
    index_id: int,
    *,
    settings: Settings,
    go_on: Callable[[], bool],
    progress: Callable[[int, int], None],
) -> None:
    """Embed parts of a build that another process is about, as long as there are any.

    `go_on` is asked before each part; `progress` hears images done by all, and in all.
    """
    with database.session() as session:
        row = session.get(ImageIndex, index_id)
    if row is None or row.state != "building":
        return
    fetch_embedder(row.embedder, settings)
    model = _load_embedder(row.embedder, settings)
    if model.revision != row.revision:
        raise EmbedderMismatch(
            f"The images are prepared with {row.revision}, and the weights here are "
            f"{model.revision}: this machine can't help. Give all machines the same weights."
        )
    helping = embed_parts(
        database,
        row,
        _make_embed(database, row, model, settings),
        settings,
        batch_size=_batch_size(model),
        is_helper=True,
        go_on=go_on,
    )
    with closing(helping) as done_counts:
        for done in done_counts:
            progress(row.copied_count + done, row.image_count)


def combine_indexes(
    database: Database, collection_id: int, first: str, second: str, *, settings: Settings
) -> ImageIndex:
    """Make one index of the collection's newest ones by two embedders; returns its row.

    Nothing is embedded. If it is there already, and its parts are the newest, nothing is done.
    """
    with _claim(database, collection_id, lambda _done, _total: None):
        with database.session() as session:
            row, parts = _plan_combined(session, collection_id, first, second)
            if row.state == "ready":
                return row
            vectors = [_open_ready(part, settings) for part in parts]
        try:
            folder = _folder(settings, row.id)
            if not folder.exists():  # else a kill came between its name and its row
                building = _building_folder(settings, row.id)
                shutil.rmtree(building, ignore_errors=True)
                building.mkdir(parents=True)
                made = engine_combined.combine_indexes(
                    building,
                    *vectors,
                    embedder=row.embedder,
                    revision=row.revision,
                    memory_bytes=psutil.virtual_memory().total,
                )
                _note_images(database, row, building, made.image_ids)
                _give_final_name(row, settings)
            put_folder(settings, folder)
            for _ in _fill(database, row, settings):
                pass
            manifest = read_manifest(folder)
            _update_row(
                database,
                row,
                state="ready",
                ready_at=func.clock_timestamp(),
                image_count=manifest.count,
                done_count=manifest.count,
                agreement=manifest.agreement,
            )
        except Exception as error:
            problem = explain_disk(error, settings.home) or error
            _update_row(database, row, state="failed", problem=str(problem))
            raise
    return row


def list_unfinished_builds(database: Database) -> list[tuple[int, str]]:
    """Collection and embedder of each build whose process is gone: what `build_index` takes up."""
    with database.session() as session:
        rows = session.execute(
            select(ImageIndex.collection_id, ImageIndex.embedder)
            .filter_by(state="building")
            .distinct()
            .order_by(ImageIndex.collection_id)
        )
        return [
            (collection_id, embedder)
            for collection_id, embedder in rows.all()
            if session.scalar(select(func.pg_try_advisory_xact_lock(*_lock_key(collection_id))))
        ]


def get_current_index(
    session: Session, collection_id: int, *, embedder: str | None = None
) -> ImageIndex:
    """The collection's newest ready index (by one embedder, or any), or NoIndexYet."""
    named = {"collection_id": collection_id, "embedder": embedder}
    row = session.scalar(_ask_current_index(embedder is not None), named)
    if row is None:
        by = "for searching" if embedder is None else f"with {embedder}"
        raise NoIndexYet(
            f"The images of this collection are not prepared {by} yet. "
            "Its page shows how far that is."
        )
    return row


@cache
def _ask_current_index(by_embedder: bool) -> Select[ImageIndex]:
    query = select(ImageIndex).where(
        ImageIndex.collection_id == bindparam("collection_id"), ImageIndex.state == "ready"
    )
    if by_embedder:
        query = query.where(ImageIndex.embedder == bindparam("embedder"))
    return query.order_by(ImageIndex.id.desc()).limit(1)


def lay_out_past(
    session: Session,
    collection: Collection,
    *,
    embedder: str,
    revision: str,
    image_ids: ImageIds,
    indexes: "OpenIndexes",
    settings: Settings,
) -> ImageIndex:
    """An index with these images in this order: one there is, or a past one of its vectors.

    Rounds draw rows by lot: they can only be repeated on rows in the order they had.
    """
    rows = session.scalars(
        select(ImageIndex)
        .filter_by(collection_id=collection.id, embedder=embedder, revision=revision)
        .where(ImageIndex.state.in_(("ready", "past")))
        .order_by(ImageIndex.id.desc())
    ).all()
    holding = None
    for row in rows:
        index = indexes.get(row)
        if np.array_equal(index.image_ids, image_ids):
            return row
        if holding is None and index.holds(image_ids).all():
            holding = row
    if holding is None:
        raise EmbedderMismatch(
            f"{collection.name} is not prepared with {revision} for all images of this search. "
            f"Prepare it first: rarefind index build “{collection.name}” --embedder {embedder}. "
            "If it is, its weights are others than those the search was made with."
        )
    source = indexes.get(holding)
    past = ImageIndex(
        collection_id=collection.id,
        embedder=embedder,
        revision=revision,
        dimension=source.dimension,
        knows_words=holding.knows_words,
        state="past",
        image_count=len(image_ids),
        done_count=len(image_ids),
        copied_count=len(image_ids),
    )
    session.add(past)
    session.flush()
    building = _building_folder(settings, past.id)
    building.mkdir(parents=True)
    _make_vectors(building / VECTORS, len(image_ids), source.dimension)
    _copy_rows(source.vectors, source.rows_of(image_ids), building / VECTORS)
    engine_index.build_index(
        building,
        vectors=np.load(building / VECTORS, mmap_mode="r"),
        image_ids=image_ids,
        embedder=embedder,
        revision=revision,
        memory_bytes=psutil.virtual_memory().total,
    )
    _give_final_name(past, settings)
    put_folder(settings, _folder(settings, past.id))
    return past


def check_index(row: ImageIndex, settings: Settings) -> None:
    """Read all files of a ready index and compare their checksums, or raise IndexNotUsable.

    Of one that only the store has, the sizes are compared: reading it would fetch all of it.
    """
    folder = _folder(settings, row.id)
    if not folder.is_dir() and holds_folder(settings, folder):
        with _explaining_damage():
            check_folder(settings, folder)
        return
    _open_ready(row, settings, verify=True)


def is_on_disk(index_id: int, settings: Settings) -> bool:
    """Whether an index is there as a whole, here or in the store; its files are not read."""
    folder = _folder(settings, index_id)
    return (folder / MANIFEST).is_file() or holds_folder(settings, folder)


def discard_files(row: ImageIndex, settings: Settings) -> None:
    """Delete the files of an index whose row is being taken back."""
    shutil.rmtree(_folder(settings, row.id), ignore_errors=True)
    delete_folders(settings, [_folder(settings, row.id)])


class OpenIndexes:
    """The indexes held open; they never change, so one serves every request that needs it.

    One that only the store has is fetched: a request waits `patience_s` for it, long work as long
    as it takes.
    """

    def __init__(self, settings: Settings, *, patience_s: float = PATIENCE_S) -> None:
        self._settings = settings
        self._patience_s = patience_s
        self._searchers = Searchers(settings)
        self._open: OrderedDict[int, VectorIndex] = OrderedDict()  # least recently used first
        self._lock = Lock()

    def get(self, row: ImageIndex) -> VectorIndex:
        """The index of a ready row, or of a past one, opened if it is not open."""
        if row.state not in ("ready", "past"):
            raise NoIndexYet("The images of this collection are still being prepared.")
        folder = _folder(self._settings, row.id)
        if row.id in self._open:
            mark_used(self._settings, folder)
        else:  # not under the lock: others go on meanwhile
            with _explaining_damage():
                fetch_folder(self._settings, folder, patience_s=self._patience_s)
        with self._lock:
            if row.id not in self._open:
                index = _open_ready(row, self._settings)
                folder = _folder(self._settings, row.id)
                searcher = self._searchers.find(row, folder, index.vectors)
                if searcher is None:
                    index.warm(folder)
                else:
                    index = index.searched_by(searcher)
                self._open[row.id] = index
            self._open.move_to_end(row.id)
            while len(self._open) > 1 and self._size_gb() > self._settings.open_indexes_gb:
                self._open.popitem(last=False)
            return self._open[row.id]

    def close(self) -> None:
        """Let go of what finds candidates elsewhere."""
        self._searchers.close()

    def measure(self) -> tuple[int, int]:
        """How many are open, and the bytes of their vectors."""
        with self._lock:
            return len(self._open), round(self._size_gb() * 1e9)

    def _size_gb(self) -> float:
        return sum(index.memory_bytes for index in self._open.values()) / 1e9


class LoadedEmbedders:
    """The embedders in memory; each is loaded when it is first needed.

    While one is loaded the others go on. Of more than a few, the least recently used is let go; who
    still uses it keeps it until then.
    """

    def __init__(self, settings: Settings, readers: Readers) -> None:
        self._settings = settings
        self.readers = readers  # of the photos to embed
        self._loaded: OrderedDict[str, Embedder] = OrderedDict()  # least recently used first
        self._loading: dict[str, Lock] = {}
        self._lock = Lock()  # held for a moment only

    def get(self, row: ImageIndex) -> Embedder:
        """The embedder whose vectors fit the index, or EmbedderMismatch."""
        with self._lock:
            own_lock = self._loading.setdefault(row.embedder, Lock())
        with own_lock:
            embedder = self._find(row.embedder)
            if embedder is None:
                try:
                    embedder = _load_embedder(row.embedder, self._settings)
                except (BadInput, EmbedderNotUsable) as error:
                    raise EmbedderMismatch(
                        f"The images were prepared with {row.embedder}, which can't be used now. "
                        f"{error}"
                    ) from error
                self._keep(row.embedder, embedder)
        if embedder.revision != row.revision:
            raise EmbedderMismatch(
                f"The images were prepared with {row.revision}, but the weights here are "
                f"{embedder.revision}. Put the old ones back, or run `rarefind index build` for "
                f"this collection with --embedder {row.embedder}, so that all its images are "
                "prepared anew."
            )
        return embedder

    def _find(self, name: str) -> Embedder | None:
        with self._lock:
            if name in self._loaded:
                self._loaded.move_to_end(name)
            return self._loaded.get(name)

    def _keep(self, name: str, embedder: Embedder) -> None:
        with self._lock:
            self._loaded[name] = embedder
            while len(self._loaded) > MOST_LOADED:
                self._loaded.popitem(last=False)


def embed_photo(
    photo: Photo, embedder: Embedder, *, settings: Settings, readers: Readers
) -> Floats:
    """The vector (d,) of an example photo."""
    file = photo_path(photo.sha256, settings=settings)
    if not fetch_file(settings, file):
        raise RefusedPhoto(f"The photo {photo.name} is gone from the data folder. Add it again.")
    # As a part of a picture, which Pillow resizes: who waits for one photo need not wait for torch.
    original = Original(str(file), file.stat().st_size, area=WHOLE_PICTURE)
    prepare = partial(prepare_files, [original], embedder.prepare, settings.max_megapixels)
    try:
        prepared = readers.run(prepare)
    except Refusal as refusal:
        prepared = [refusal]
    [vector] = _embed_prepared(embedder, prepared)
    if isinstance(vector, Refusal):
        raise RefusedPhoto(f"{vector.detail} Try another photo.")
    return vector


# --- What there is to build ---------------------------------------------------------------------


def _load(database: Database, collection_id: int, name: str, settings: Settings) -> Embedder:
    try:
        fetch_embedder(name, settings)
        return _load_embedder(name, settings)
    except (BadInput, EmbedderNotUsable) as error:
        _fail(database, collection_id, name, problem=str(error))
        raise


def _fail(database: Database, collection_id: int, embedder: str, *, problem: str) -> None:
    """Keep why nothing can be built, where the collection's page shows it."""
    with database.session() as session:
        under_way = session.scalars(
            select(ImageIndex).filter_by(
                collection_id=collection_id, embedder=embedder, state="building"
            )
        ).all()
        for row in under_way or [
            ImageIndex(
                collection_id=collection_id,
                embedder=embedder,
                revision="",
                dimension=0,
                image_count=0,
            )
        ]:
            row.state = "failed"
            row.problem = problem
            session.add(row)


def _load_embedder(name: str, settings: Settings) -> Embedder:
    try:
        return load_embedder(name, device=settings.device, weights_folder=settings.weights_folder)
    except UnknownEmbedder as error:
        raise BadInput(str(error)) from error
    except EngineError as error:
        raise EmbedderNotUsable(str(error)) from error


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
            done, total = (0, 0) if counts is None else counts
            tell(done, total)  # whatever it knows: who tells hears whether to stop
            time.sleep(0.5)
        try:
            yield
        finally:
            with suppress(SQLAlchemyError):  # lost with the connection
                connection.execute(select(func.pg_advisory_unlock(*key)))


def _lock_key(collection_id: int) -> tuple[Cast[int], Cast[int]]:
    return cast(INDEX_LOCK, Integer), cast(collection_id, Integer)


def _take_up(
    database: Database, collection_id: int, model: Embedder, settings: Settings
) -> ImageIndex | None:
    """The row of a build that was cut off, to go on with; those nobody can finish are failed."""
    with database.session() as session:
        last_ready_id = session.scalar(
            _ready(collection_id, model).with_only_columns(ImageIndex.id)
        )
        unfinished = session.scalars(
            select(ImageIndex)
            .filter_by(collection_id=collection_id, embedder=model.name)
            .where(
                ImageIndex.state.in_(("building", "failed")), ImageIndex.id > (last_ready_id or 0)
            )
            .order_by(ImageIndex.id.desc())
        ).all()
        vectors = session.get_one(Collection, collection_id).vectors
        taken_up = None
        for row in unfinished:
            is_wanted = (row.revision, row.vectors) == (model.revision, vectors)
            if taken_up is None and is_wanted:
                taken_up = row
                row.state = "building"
                row.problem = None
            elif row.state == "building":
                row.state = "failed"
                row.problem = (
                    "Another version of the embedder is installed now, or the collection's "
                    "vectors are to be searched by something else."
                )
                shutil.rmtree(_building_folder(settings, row.id), ignore_errors=True)
                remove_part_files(row.id, settings)
        return taken_up


def _plan_next(
    database: Database, collection_id: int, model: Embedder, settings: Settings
) -> ImageIndex | None:
    """The row of a new index, or None when the newest one holds all that can be read."""
    with database.session() as session:
        image_count = session.scalar(
            select(func.count())
            .select_from(Image)
            .filter_by(collection_id=collection_id, removed_at=None)
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
            knows_words=model.embed_text is not None,
            vectors=session.get_one(Collection, collection_id).vectors,
            state="building",
            image_count=image_count,
            done_count=0,
        )
        session.add(row)
        session.flush()
        return row


def _plan_combined(
    session: Session, collection_id: int, first: str, second: str
) -> tuple[ImageIndex, list[ImageIndex]]:
    """The row of the combined index, ready or to be built, and those of its parts."""
    parts = [get_current_index(session, collection_id, embedder=name) for name in (first, second)]
    if first == second or any(part.first_part_id is not None for part in parts):
        raise BadInput("Name two different embedders, each with an index of its own.")
    vectors = session.get_one(Collection, collection_id).vectors
    own = select(ImageIndex).filter_by(
        collection_id=collection_id,
        first_part_id=parts[0].id,
        second_part_id=parts[1].id,
        vectors=vectors,
    )
    row = session.scalar(own.order_by(ImageIndex.id.desc()).limit(1))
    if row is None or row.state == "failed":
        row = ImageIndex(
            collection_id=collection_id,
            embedder=f"{first} + {second}",
            revision=f"{parts[0].revision} + {parts[1].revision}",
            dimension=parts[0].dimension + parts[1].dimension,
            knows_words=any(part.knows_words for part in parts),
            vectors=vectors,
            state="building",
            image_count=min(part.image_count for part in parts),
            first_part_id=parts[0].id,
            second_part_id=parts[1].id,
        )
        session.add(row)
        session.flush()
    return row, parts


def _is_complete(session: Session, collection_id: int, model: Embedder, settings: Settings) -> bool:
    previous = _find_previous(session, collection_id, model, settings)
    if previous is None:
        return False
    row, index = previous
    if row.vectors != session.get_one(Collection, collection_id).vectors:
        return False
    left_out = {
        image_id: reason == GONE and find_original(file, settings).is_file()
        for image_id, reason, file in session.execute(
            select(UnreadableImage.image_id, UnreadableImage.reason, Image.file)
            .join(Image, Image.id == UnreadableImage.image_id)
            .filter(UnreadableImage.index_id == row.id)
        )
    }
    known = np.sort(np.concatenate([index.image_ids, np.array(list(left_out), dtype=np.int64)]))
    is_back = any(left_out.values())  # the disk that was away is connected again
    is_back = is_back or bool(_list_boxed_since(session, row))
    return not is_back and np.array_equal(known, _list_image_ids(session, collection_id))


def _find_previous(
    session: Session, collection_id: int, model: Embedder, settings: Settings
) -> tuple[ImageIndex, VectorIndex] | None:
    """The newest ready index of the same embedder, whole to the last byte; damaged ones fail."""
    for row in session.scalars(_ready(collection_id, model)):
        try:
            return row, _open_ready(row, settings, verify=True)
        except IndexNotUsable as error:
            row.state = "failed"
            row.problem = str(error)
    return None


def _list_boxed_since(session: Session, row: ImageIndex) -> list[int]:
    """Images whose boxes changed since an index that looks at them was begun."""
    if not looks_at_boxes(row.embedder):
        return []
    query = select(Image.id).where(
        Image.collection_id == row.collection_id,
        Image.removed_at.is_(None),
        Image.boxed_at > row.started_at,
    )
    return list(session.scalars(query))


def _open_ready(row: ImageIndex, settings: Settings, *, verify: bool = False) -> VectorIndex:
    folder = _folder(settings, row.id)
    with _explaining_damage():
        fetch_folder(settings, folder)
    try:
        index = open_index(folder, verify=verify, memory_bytes=psutil.virtual_memory().total)
    except EngineError as error:
        raise IndexNotUsable(
            f"What was prepared for searching is damaged ({error}). Run `rarefind collection add` "
            "for this collection again: what is lost is prepared anew."
        ) from error
    if (index.manifest.embedder, index.manifest.revision) != (row.embedder, row.revision):
        raise IndexNotUsable(
            f"{folder} was made by {index.manifest.revision}, not by {row.revision} as the "
            "database says. Do database and data folder belong together?"
        )
    return index


@contextmanager
def _explaining_damage() -> Iterator[None]:
    """An index whose files the store gives back otherwise can't be used; it is built anew."""
    try:
        yield
    except StoreDamaged as error:
        raise IndexNotUsable(str(error)) from error


def _list_image_ids(session: Session, collection_id: int) -> ImageIds:
    """The ids of the collection's images that are not removed, in order."""
    query = select(Image.id).filter_by(collection_id=collection_id, removed_at=None)
    query = query.order_by(Image.id)
    return np.fromiter(session.scalars(query), dtype=np.int64)


def _ready(collection_id: int, model: Embedder) -> Select[ImageIndex]:
    return (
        select(ImageIndex)
        .filter_by(
            collection_id=collection_id,
            embedder=model.name,
            revision=model.revision,
            state="ready",
        )
        .order_by(ImageIndex.id.desc())
    )


# --- Building -----------------------------------------------------------------------------------


def _build(
    database: Database,
    row: ImageIndex,
    model: Embedder,
    settings: Settings,
    call_for_help: CallForHelp | None,
) -> Generator[int]:
    """Build the index of a row, yielding the images done; an error is noted in the row."""
    try:
        folder = _folder(settings, row.id)
        if not folder.exists():
            yield from _embed_missing(database, row, model, settings, call_for_help)
            _write_index(database, row, settings)
        yield from _fill(database, row, settings)
        (folder / PLAN).unlink(missing_ok=True)
        put_folder(settings, folder)
        ahead.path_of(settings, row.collection_id, row.revision).unlink(missing_ok=True)
        manifest = read_manifest(folder)
        _update_row(
            database,
            row,
            state="ready",
            ready_at=func.clock_timestamp(),
            image_count=manifest.count,
            done_count=manifest.count,
            agreement=manifest.agreement,
        )
    except Exception as error:
        known = error if isinstance(error, RarefindError) else explain_disk(error, settings.home)
        sentence = repr(error) if known is None else str(known)
        with suppress(SQLAlchemyError):  # the database may be what failed
            _update_row(database, row, state="failed", problem=sentence)
        raise


def _embed_missing(
    database: Database,
    row: ImageIndex,
    model: Embedder,
    settings: Settings,
    call_for_help: CallForHelp | None,
) -> Generator[int]:
    """Fill the building folder's vectors, a recorded chunk at a time."""
    building = _building_folder(settings, row.id)
    image_ids = _read_plan(database, row, building)
    with database.session() as session:
        start = find_start(session, row.id)
    is_divided = start is not None
    if image_ids is None:
        image_ids = _lay_out(database, row, model, settings)
        start = None
    done = row.done_count if start is None else start
    if (is_divided or call_for_help is not None) and plan_parts(
        database, row, image_ids, start_row=done, batch_size=_batch_size(model)
    ):
        yield from _embed_in_parts(
            database, row, model, settings, call_for_help, start_row=done, count=len(image_ids)
        )
        return
    yield done
    if done == len(image_ids):
        return
    originals = _read_originals(
        database, image_ids[done:], in_boxes=looks_at_boxes(row.embedder), settings=settings
    )
    nothing = np.zeros(row.dimension, np.float32)
    chunk: list[Floats] = []
    refused: dict[int, Refusal] = {}
    recorded_at = time.monotonic()
    with closing(_embed_all(originals, model, settings)) as tasks:
        for task in tasks:
            for _, outcome in task:
                if isinstance(outcome, Refusal):
                    refused[int(image_ids[done + len(chunk)])] = outcome
                chunk.append(nothing if isinstance(outcome, Refusal) else outcome)
            is_due = len(chunk) >= CHUNK_IMAGES or time.monotonic() - recorded_at > CHUNK_S
            if is_due or done + len(chunk) == len(image_ids):
                _write_rows(building / VECTORS, done, np.stack(chunk))
                done += len(chunk)
                _record(database, row, done, refused)
                chunk, refused, recorded_at = [], {}, time.monotonic()
                yield done
    if done != len(image_ids):  # then rows may be those of other images
        shutil.rmtree(building)
        raise RarefindError(
            f"Of {len(image_ids):,} images {done + len(chunk):,} came back from being read. What "
            "was prepared was thrown away; prepare the collection again."
        )


def _embed_in_parts(
    database: Database,
    row: ImageIndex,
    model: Embedder,
    settings: Settings,
    call_for_help: CallForHelp | None,
    *,
    start_row: int,
    count: int,
) -> Generator[int]:
    """Fill the building folder's vectors, of parts that others embed as well."""
    embed = _make_embed(database, row, model, settings)
    tasks = embed_parts(
        database, row, embed, settings, batch_size=_batch_size(model), is_helper=False
    )
    if call_for_help is not None:
        call_for_help(row)
    called_at = noted_at = time.monotonic()
    with closing(tasks) as done_counts:
        for done in done_counts:
            now_s = time.monotonic()
            if call_for_help is not None and now_s - called_at > ASK_S:
                call_for_help(row)
                called_at = now_s
            if start_row + done != row.done_count or now_s - noted_at > CHUNK_S:
                _update_row(database, row, done_count=start_row + done)
                noted_at = now_s
            yield start_row + done
    vectors = _building_folder(settings, row.id) / VECTORS
    for start, some in gather_parts(database, row.id, settings):
        _write_rows(vectors, start, some)
    _update_row(database, row, done_count=count)
    with database.session() as session:
        end_parts(session, row.id)
    remove_part_files(row.id, settings)


def _read_plan(database: Database, row: ImageIndex, building: Path) -> ImageIds | None:
    """The image ids of a build's rows, or None when nothing of it can be gone on with."""
    if row.done_count == 0:
        return None
    try:
        image_ids: ImageIds = np.load(building / PLAN)
        shape = np.load(building / VECTORS, mmap_mode="r").shape
    except (OSError, ValueError, EOFError):
        return None
    with database.session() as session:
        left_out = session.scalar(
            select(func.count()).select_from(UnreadableImage).filter_by(index_id=row.id)
        )
        is_current = np.isin(image_ids, _list_image_ids(session, row.collection_id)).all()
    lengths = [len(image_ids)]
    if row.done_count == len(image_ids):
        lengths.append(len(image_ids) - (left_out or 0))  # cut off after closing the gaps
    fits = shape in [(length, row.dimension) for length in lengths]
    return image_ids if fits and is_current else None


def _lay_out(database: Database, row: ImageIndex, model: Embedder, settings: Settings) -> ImageIds:
    """Make the building folder afresh: first the vectors an earlier index has, then room."""
    building = _building_folder(settings, row.id)
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    with database.session() as session:
        session.execute(delete(UnreadableImage).filter_by(index_id=row.id))
        wanted = _list_image_ids(session, row.collection_id)
        previous = _find_previous(session, row.collection_id, model, settings)
        earlier = np.empty(0, np.int64) if previous is None else previous[1].image_ids
        boxed = [] if previous is None else _list_boxed_since(session, previous[0])
        rows = np.flatnonzero(np.isin(earlier, wanted) & ~np.isin(earlier, boxed))
        new = wanted[~np.isin(wanted, earlier[rows])]
        path = ahead.path_of(settings, row.collection_id, model.revision)
        places = ahead.find_vectors(session, path, new, model.dimension)
    is_made = places >= 0
    image_ids = np.concatenate([earlier[rows], new[is_made], new[~is_made]])
    np.save(building / PLAN, image_ids)
    _make_vectors(building / VECTORS, len(image_ids), model.dimension)
    if previous is not None:
        _copy_rows(previous[1].vectors, rows, building / VECTORS)
    if is_made.any():
        made = ahead.open_vectors(path, model.dimension)
        _copy_rows(made, places[is_made], building / VECTORS, start_row=len(rows))
    count = len(rows) + int(is_made.sum())
    _update_row(database, row, image_count=len(image_ids), done_count=count, copied_count=count)
    return image_ids


def _make_vectors(path: Path, count: int, dimension: int) -> None:
    open_memmap(path, mode="w+", dtype=np.float32, shape=(count, dimension))


def _copy_rows(source: Floats, rows: NDArray[np.int64], path: Path, *, start_row: int = 0) -> None:
    """Copy `rows` of `source` into a file of vectors, a piece at a time."""
    for start in range(0, len(rows), COPY_ROWS):
        _write_rows(path, start_row + start, source[rows[start : start + COPY_ROWS]])


def _write_rows(path: Path, start: int, vectors: Floats) -> None:
    """Write rows into a file of vectors, down to the disk.

    Not through a memory map: while one is flushed, all threads of the process stand still.
    """
    mapped = np.load(path, mmap_mode="r")
    with path.open("r+b") as file:
        file.seek(mapped.offset + start * mapped.strides[0])
        file.write(np.ascontiguousarray(vectors).data)
        file.flush()
        os.fsync(file.fileno())


def _read_originals(
    database: Database, image_ids: ImageIds, *, in_boxes: bool, settings: Settings
) -> Iterator[Original]:
    """Where the files of the images are, in order; with what a detector drew a box around.

    Those of the store are fetched, some at a time.
    """
    for start in range(0, len(image_ids), 1_000):
        some = image_ids[start : start + 1_000].tolist()
        with database.session() as session:
            query = select(Image.id, Image.file, Image.size_bytes).where(is_among(Image.id, some))
            areas = find_areas(session, some) if in_boxes else {}
            found = {
                image_id: Original(
                    str(place_original(file, settings)), size_bytes, areas.get(image_id)
                )
                for image_id, file, size_bytes in session.execute(query)
            }
        if settings.store is not None:
            fetch_files(settings, [Path(original.file) for original in found.values()])
        yield from (found[image_id] for image_id in some)


def _record(database: Database, row: ImageIndex, done: int, refused: dict[int, Refusal]) -> None:
    """Record a chunk whose vectors are on the disk."""
    with database.session() as session:
        session.add_all(
            UnreadableImage(index_id=row.id, image_id=image_id, reason=refusal.detail)
            for image_id, refusal in refused.items()
        )
    _update_row(database, row, done_count=done)


def _update_row(database: Database, row: ImageIndex, **values: object) -> None:
    with database.session() as session:
        session.add(row)
        for name, value in values.items():
            setattr(row, name, value)
        row.updated_at = func.clock_timestamp()


def _write_index(database: Database, row: ImageIndex, settings: Settings) -> None:
    """Make the filled building folder an index, and give it its final name."""
    building = _building_folder(settings, row.id)
    with database.session() as session:
        left_out = list(
            session.scalars(select(UnreadableImage.image_id).filter_by(index_id=row.id))
        )
    image_ids: ImageIds = np.load(building / PLAN)
    rows = np.flatnonzero(~np.isin(image_ids, left_out))
    if len(rows) == 0:
        shutil.rmtree(building)  # a later call begins again
        raise SourceNotUsable(
            "None of the images can be read. Is the disk with the originals connected?"
        )
    vectors = np.load(building / VECTORS, mmap_mode="r")
    if len(vectors) > len(rows):
        closed_up = building / "closed_up.npy"
        _make_vectors(closed_up, len(rows), row.dimension)
        _copy_rows(vectors, rows, closed_up)
        closed_up.replace(building / VECTORS)
        vectors = np.load(building / VECTORS, mmap_mode="r")
    _note_images(database, row, building, image_ids[rows])
    engine_index.build_index(
        building,
        vectors=vectors,
        image_ids=image_ids[rows],
        embedder=row.embedder,
        revision=row.revision,
        memory_bytes=psutil.virtual_memory().total,
    )
    _give_final_name(row, settings)


def _note_images(database: Database, row: ImageIndex, building: Path, image_ids: ImageIds) -> None:
    if row.vectors != FAISS:
        with database.session() as session:
            note_images(session, building, image_ids)


def _fill(database: Database, row: ImageIndex, settings: Settings) -> Generator[int]:
    """Fill what searches the index; its row shows that it goes on."""
    recorded_at = time.monotonic()
    for done in fill_index(database, row, _folder(settings, row.id), settings):
        if time.monotonic() - recorded_at > CHUNK_S:
            _update_row(database, row)
            recorded_at = time.monotonic()
        yield done


def _give_final_name(row: ImageIndex, settings: Settings) -> None:
    """On the disk before the name says it is whole: a power cut must not leave it torn."""
    building = _building_folder(settings, row.id)
    for path in (*building.iterdir(), building):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    building.rename(_folder(settings, row.id))


def _folder(settings: Settings, index_id: int) -> Path:
    return settings.home / "indexes" / str(index_id)


def _building_folder(settings: Settings, index_id: int) -> Path:
    return settings.home / "indexes" / f"{index_id}.building"


# --- Reading and embedding ----------------------------------------------------------------------

_Embedded = list[Floats | Refusal]  # for each original its vector, or why not


def _embed_all(
    originals: Iterator[Original], model: Embedder, settings: Settings
) -> Generator[list[tuple[Original, Floats | Refusal]]]:
    """Embed originals in order: processes read ahead while the model's streams embed."""
    return work_through(
        originals,
        partial(prepare_files, prepare=model.prepare, max_megapixels=settings.max_megapixels),
        partial(_embed_prepared, model),
        settings=settings,
        processes=count_processes(settings),
        threads=model.streams,
        size=_batch_size(model),
    )


def _make_embed(database: Database, row: ImageIndex, model: Embedder, settings: Settings) -> Embed:
    """What embeds images by their numbers, as the build of an index does."""
    in_boxes = looks_at_boxes(row.embedder)

    def embed(images: Iterator[ImageIds]) -> Generator[_Embedded]:
        originals = (
            _read_originals(database, some, in_boxes=in_boxes, settings=settings) for some in images
        )
        with closing(_embed_all(chain.from_iterable(originals), model, settings)) as tasks:
            for task in tasks:
                yield [outcome for _, outcome in task]

    return embed


def _batch_size(model: Embedder) -> int:
    return max(READ_FILES, model.batch_size)


def _embed_prepared(model: Embedder, prepared: _Prepared) -> _Embedded:
    usable = [pixels for pixels in prepared if not isinstance(pixels, Refusal)]
    vectors = iter(model.embed_images(np.stack(usable)) if usable else ())
    outcomes: _Embedded = []
    for pixels in prepared:
        outcome = pixels if isinstance(pixels, Refusal) else next(vectors)
        # A flat picture can come out as zero or, in half precision, as no number at all.
        if not isinstance(outcome, Refusal) and not abs(np.linalg.norm(outcome) - 1) < 1e-3:
            outcome = Refusal(DAMAGED, "The embedder finds nothing in it to go by.")
        outcomes.append(outcome)
    return outcomes
