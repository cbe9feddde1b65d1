"""A build that several workers share: parts of its images, taken one by one, joined at the end.

Whoever builds an index plans its parts; any worker on any machine takes parts that nobody has. Who
works on a part holds its advisory lock: the database lets go when that process or machine dies, and
another takes the part anew. The vectors of a part are a file, in the shared data folder or in the
store, written before the row says that the part is done. Parts begin where a lone build's batches
begin, so the vectors are the same to the last byte.
"""

import io
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Cast, Connection, Integer, cast, delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.database import PART_LOCK, Database
from app.engine.embedders import Floats
from app.errors import RarefindError
from app.preparing import GONE
from app.reading import Refusal, write_whole
from app.settings import Settings
from app.store import delete_folders, fetch_file, put_files
from app.tables import ImageIndex, IndexPart, UnreadableImage

PART_IMAGES = 2_048  # what a kill can lose: some minutes of a slow embedder
LEAST_PARTS = 4  # a smaller build is over before another worker has loaded its embedder
NOTE_S = 5.0  # between words on how far a part is
LOOK_S = 0.5  # between looks for parts that others let go, once all are taken
ASK_S = 10.0  # between calls for help: workers come and go

ImageIds = NDArray[np.int64]
# Embeds images, given as arrays of them, in order: outcomes as they come, a few at a time.
Embed = Callable[[Iterator[ImageIds]], Generator[list[Floats | Refusal]]]


class CanNotHelp(RarefindError):
    """This machine can't read originals that another may: it leaves their part to others."""


def plan_parts(
    database: Database, row: ImageIndex, image_ids: ImageIds, *, start_row: int, batch_size: int
) -> bool:
    """Divide what is to be embedded of an index, if that is worth it; whether it is divided.

    A part that was planned before, of the same images for the same rows, stays as it is.
    """
    size = -(-PART_IMAGES // batch_size) * batch_size
    wanted = {
        start: image_ids[start : start + size].tolist()
        for start in range(start_row, len(image_ids), size)
    }
    with database.session() as session:
        parts = session.scalars(select(IndexPart).filter_by(index_id=row.id)).all()
        known = {part.start_row: part.image_ids for part in parts}
        if known == wanted and parts:
            return True
        # Begun by itself, or begun otherwise: what is done of the same images still counts.
        for part in parts:
            if wanted.get(part.start_row) != part.image_ids:
                session.delete(part)
        session.flush()
        kept = {start for start, own in known.items() if wanted.get(start) == own}
        if not kept and len(wanted) < LEAST_PARTS:
            return False
        session.add_all(
            IndexPart(index_id=row.id, start_row=start, image_ids=own)
            for start, own in wanted.items()
            if start not in kept
        )
    return True


def find_start(session: Session, index_id: int) -> int | None:
    """The first row that parts of an index are of; None for a build that is not divided."""
    return session.scalar(select(func.min(IndexPart.start_row)).filter_by(index_id=index_id))


def embed_parts(
    database: Database,
    row: ImageIndex,
    embed: Embed,
    settings: Settings,
    *,
    batch_size: int,
    is_helper: bool,
    go_on: Callable[[], bool] = lambda: True,
) -> Generator[int]:
    """Take parts and embed them until none is free, yielding how many images of all are done.

    `go_on` is asked before each part is taken. A helper ends there; whoever builds the index stays
    until every part is done, and takes those that others let go.
    """
    with _claiming(database) as claims:
        while True:
            taken: deque[IndexPart] = deque()
            first = _take_next(database, claims, row.id) if go_on() else None
            if first is not None:
                more = partial(_take_next, database, claims, row.id)
                images = _take_parts(first, more, taken, batch_size, go_on)
                with closing(embed(images)) as tasks:
                    yield from _embed_taken(database, taken, tasks, settings, claims, is_helper)
                continue
            if is_helper:
                return
            state, left, done = _count(database, row.id)
            yield done
            if left == 0:
                return
            if state != "building":
                raise RarefindError("It was ended by somebody else. Prepare the collection again.")
            time.sleep(LOOK_S)


def gather_parts(
    database: Database, index_id: int, settings: Settings
) -> Iterator[tuple[int, Floats]]:
    """The first row and the vectors of each part, all of which are done."""
    with database.session() as session:
        parts = session.execute(
            select(IndexPart.id, IndexPart.start_row)
            .filter_by(index_id=index_id)
            .order_by(IndexPart.start_row)
        ).all()
    for part_id, start in parts:
        path = _part_file(settings, index_id, part_id)
        if not fetch_file(settings, path):
            with database.session() as session:
                lost = update(IndexPart).filter_by(id=part_id)
                session.execute(lost.values(done_at=None, done_count=0, refused={}))
            raise RarefindError(
                f"Vectors that a worker made are gone: {path.name} of {path.parent}. Prepare the "
                "collection again: they are made anew, all others are kept."
            )
        yield start, np.load(path)


def end_parts(session: Session, index_id: int) -> None:
    """Note which images the parts left out, and forget the parts: their vectors are in place."""
    own = select(IndexPart.refused).filter_by(index_id=index_id)
    refused = {int(one): why for part in session.scalars(own) for one, why in part.items()}
    known = UnreadableImage.image_id.in_(list(refused))
    session.execute(delete(UnreadableImage).filter_by(index_id=index_id).where(known))
    session.add_all(
        UnreadableImage(index_id=index_id, image_id=image_id, reason=why)
        for image_id, why in refused.items()
    )
    session.execute(delete(IndexPart).filter_by(index_id=index_id))


def remove_part_files(index_id: int, settings: Settings) -> None:
    """Remove the vectors of parts, which the index has now."""
    folder = parts_folder(settings, index_id)
    shutil.rmtree(folder, ignore_errors=True)
    delete_folders(settings, [folder])


def parts_folder(settings: Settings, index_id: int) -> Path:
    """Where the vectors of an index's parts wait to be put together."""
    return settings.home / "indexes" / f"{index_id}.parts"


# --- Taking parts ---------------------------------------------------------------------------------


class _Claims:
    """The parts that this process holds."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._held: set[int] = set()

    def take(self, part_id: int) -> bool:
        """Whether the part is ours alone now; one that is ours already is not taken again."""
        if part_id in self._held:
            return False
        if self._connection.scalar(select(func.pg_try_advisory_lock(*_lock_key(part_id)))):
            self._held.add(part_id)
            return True
        return False

    def let_go(self, part_id: int) -> None:
        self._connection.execute(select(func.pg_advisory_unlock(*_lock_key(part_id))))
        self._held.discard(part_id)


@contextmanager
def _claiming(database: Database) -> Iterator[_Claims]:
    """Hold parts by a connection of our own: with it, or this process, they are free again."""
    engine = database.bind.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        try:
            yield _Claims(connection)
        finally:
            with suppress(SQLAlchemyError):  # lost with the connection
                connection.execute(select(func.pg_advisory_unlock_all()))


def _lock_key(part_id: int) -> tuple[Cast[int], Cast[int]]:
    return cast(PART_LOCK, Integer), cast(part_id, Integer)


def _take_parts(
    first: IndexPart,
    take_next: Callable[[], IndexPart | None],
    taken: deque[IndexPart],
    batch_size: int,
    go_on: Callable[[], bool],
) -> Iterator[ImageIds]:
    """The images of one free part after the other, taken when they are asked for."""
    part: IndexPart | None = first
    while part is not None:
        taken.append(part)
        yield np.array(part.image_ids, dtype=np.int64)
        if len(part.image_ids) % batch_size:
            return  # what came behind it would be in other batches than of a lone build
        part = take_next() if go_on() else None


def _take_next(database: Database, claims: _Claims, index_id: int) -> IndexPart | None:
    with database.session() as session:
        is_building = select(ImageIndex.state).filter_by(id=index_id)
        if session.scalar(is_building) != "building":
            return None  # it was stopped, or has failed
        free = select(IndexPart.id).filter_by(index_id=index_id, done_at=None)
        for part_id in session.scalars(free.order_by(IndexPart.start_row)).all():
            if not claims.take(part_id):
                continue
            part = session.get(IndexPart, part_id, populate_existing=True)
            if part is not None and part.done_at is None:
                part.done_count = 0
                return part
            claims.let_go(part_id)  # it was done between the two
    return None


def _count(database: Database, index_id: int) -> tuple[str | None, int, int]:
    """The state of a build, its parts that are not done, and the images that are."""
    with database.session() as session:
        state = session.scalar(select(ImageIndex.state).filter_by(id=index_id))
        own = select(
            func.count().filter(IndexPart.done_at.is_(None)),
            func.coalesce(func.sum(IndexPart.done_count), 0),
        ).filter_by(index_id=index_id)
        left, done = session.execute(own).one()
        return state, left, int(done)


# --- Doing them -----------------------------------------------------------------------------------


def _embed_taken(
    database: Database,
    taken: deque[IndexPart],
    tasks: Generator[list[Floats | Refusal]],
    settings: Settings,
    claims: _Claims,
    is_helper: bool,
) -> Generator[int]:
    outcomes: list[Floats | Refusal] = []
    noted_at = time.monotonic()
    for task in tasks:
        outcomes += task
        while taken and len(outcomes) >= len(taken[0].image_ids):
            part = taken.popleft()
            own, outcomes = outcomes[: len(part.image_ids)], outcomes[len(part.image_ids) :]
            _finish(database, part, own, settings, is_helper=is_helper)
            claims.let_go(part.id)
            noted_at = time.monotonic()
            yield _count(database, part.index_id)[2]
        if taken and time.monotonic() - noted_at > NOTE_S:
            _note(database, taken[0].id, done_count=len(outcomes))
            noted_at = time.monotonic()
            yield _count(database, taken[0].index_id)[2]
    if taken:  # then rows may be those of other images
        raise RarefindError(
            f"Of {len(taken[0].image_ids):,} images {len(outcomes):,} came back from being read. "
            "Prepare the collection again: what others did of it is kept."
        )


def _finish(
    database: Database,
    part: IndexPart,
    outcomes: list[Floats | Refusal],
    settings: Settings,
    *,
    is_helper: bool,
) -> None:
    """Keep the vectors of a part, then note that it is done."""
    refused = {
        str(image_id): outcome.detail
        for image_id, outcome in zip(part.image_ids, outcomes, strict=True)
        if isinstance(outcome, Refusal)
    }
    if is_helper and GONE in refused.values():
        raise CanNotHelp(
            "This machine does not see all originals, so it leaves them to the one that builds "
            "the index. Connect their disk here by the same path."
        )
    path = _part_file(settings, part.index_id, part.id)
    with database.session() as session:
        dimension = session.scalar(select(ImageIndex.dimension).filter_by(id=part.index_id))
    nothing = np.zeros(dimension or 0, np.float32)
    content = io.BytesIO()
    rows = [nothing if isinstance(one, Refusal) else one for one in outcomes]
    np.save(content, np.stack(rows).astype(np.float32))
    write_whole(path, content.getvalue())
    with path.open("rb") as file:
        os.fsync(file.fileno())
    put_files(settings, [path])
    _note(database, part.id, done_count=len(outcomes), done_at=datetime.now(UTC), refused=refused)


def _note(database: Database, part_id: int, **values: object) -> None:
    with database.session() as session:
        session.execute(update(IndexPart).filter_by(id=part_id, done_at=None).values(**values))


def _part_file(settings: Settings, index_id: int, part_id: int) -> Path:
    # Not by its row: who still embeds a part that was planned otherwise since must not write here.
    return parts_folder(settings, index_id) / f"{part_id}.npy"
