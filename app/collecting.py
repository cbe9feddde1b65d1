"""Collections as people see them: how the preparation of one stands and what is known of it."""

import time
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from typing import TypedDict

from sqlalchemy import exists, func, select, true
from sqlalchemy.orm import Session

from app.access import sees_collection
from app.database import is_among
from app.errors import NotFound
from app.removing import count_removed
from app.sensitive import count_people_images
from app.tables import (
    Collection,
    Image,
    ImageIndex,
    ImagePath,
    Import,
    Job,
    Person,
    RefusedFile,
    UnreadableImage,
    Upload,
)

REFUSED_PER_PAGE = 100
MOSAIC_SIZE = 4
HEAD_MOSAIC_SIZE = 16
CAMERAS_SHOWN = 4
COUNTED_S = 600  # after which images are counted again in any case
STALLED_AFTER_S = 120  # a chunk of the slowest embedder on one core stays far below


@dataclass(frozen=True)
class Preparation:
    """How far a collection is from being searchable.

    `stage`: queued, waiting, importing, loading, indexing (work goes on), ready, stopped (somebody
    must act), or empty (files are to be uploaded first). Queued, it has not been begun.
    """

    stage: str
    problem: str | None = None  # of the newest import or index; may stand beside "ready"
    source: str | None = None  # of the newest import, as are the next two
    labels: str | None = None
    copy: bool = False
    done: int = 0
    total: int = 0
    per_second: float | None = None
    left_s: float | None = None
    stalled: bool = False  # said nothing for a while
    imported: int = 0
    duplicates: int = 0
    refused: int = 0
    at_once: bool = False  # vectors are made while files are read

    @property
    def is_running(self) -> bool:
        """Whether work goes on, so that a page should look again."""
        return self.stage in ("queued", "waiting", "importing", "loading", "indexing")


class _How(TypedDict):
    """What an import was told, to be run again as it was, and whether it embeds on the way."""

    source: str
    labels: str | None
    copy: bool
    at_once: bool


@dataclass(frozen=True)
class CollectionSummary:
    """A collection as a card of the home page."""

    collection: Collection
    image_count: int
    image_ids: list[int]  # for a small mosaic
    preparation: Preparation


@dataclass(frozen=True)
class CollectionFacts:
    """What is known of a collection."""

    collection: Collection
    image_count: int
    duplicate_count: int
    size_bytes: int
    first_captured_at: datetime | None
    last_captured_at: datetime | None
    dated_count: int
    placed_count: int
    cameras: list[tuple[str, int]]
    camera_count: int
    refused: list[tuple[str, int]]  # reason, files
    unreadable_count: int  # left out of the current index
    removed_count: int
    people_count: int  # hidden, because they show people
    image_ids: list[int]  # for the mosaic


@dataclass(frozen=True)
class RefusedPage:
    """One page of the files that did not become images."""

    files: list[RefusedFile]
    page: int
    pages: int
    total: int


class ImageCounts:
    """How many images collections have, counted again only when some came or went.

    To count a million takes a fifth of a second, which is most of what a home page takes.
    """

    def __init__(self) -> None:
        # By collection: the newest image and those removed when it was counted, when, how many.
        self._known: dict[int, tuple[tuple[int | None, int], float, int]] = {}

    def read(self, session: Session) -> dict[int, int]:
        """The images of each collection that has any, without those that were removed."""
        newest = session.scalar(select(func.max(Image.id)))
        query = select(Image.collection_id, func.count()).where(Image.removed_at.is_not(None))
        removed = dict(session.execute(query.group_by(Image.collection_id)).all())
        now = time.monotonic()
        all_ids = session.scalars(select(Collection.id))
        states = {one: (newest, removed.get(one, 0)) for one in all_ids}
        stale = [
            one
            for one, state in states.items()
            if (known := self._known.get(one)) is None
            or known[0] != state
            or now - known[1] > COUNTED_S
        ]
        if stale:
            query = select(Image.collection_id, func.count()).where(
                Image.removed_at.is_(None), is_among(Image.collection_id, stale)
            )
            counted = dict(session.execute(query.group_by(Image.collection_id)).all())
            for one in stale:
                self._known[one] = (states[one], now, counted.get(one, 0))
        return {one: self._known[one][2] for one in states}


def list_collections(session: Session, person: Person, *, now: datetime) -> list[CollectionSummary]:
    """The collections a person sees, by name."""
    counts = session.info.get("image_counts", ImageCounts()).read(session)
    query = select(Collection).where(sees_collection(person)).order_by(Collection.name)
    collections = session.scalars(query).all()
    ids = [collection.id for collection in collections]
    work, mosaics = _read_work(session, ids), _list_mosaics(session, ids, MOSAIC_SIZE)
    return [
        CollectionSummary(
            collection=collection,
            image_count=counts.get(collection.id, 0),
            image_ids=mosaics[collection.id],
            preparation=_tell_preparation(session, collection, work[collection.id], now),
        )
        for collection in collections
    ]


def describe_preparation(session: Session, collection: Collection, *, now: datetime) -> Preparation:
    """What the newest import and the newest index say together."""
    work = _read_work(session, [collection.id])[collection.id]
    return _tell_preparation(session, collection, work, now)


@dataclass
class _Work:
    """What goes on in a collection, or went on last."""

    run: Import | None = None
    builds: list[ImageIndex] = field(default_factory=list)  # the newest first
    import_job: Job | None = None
    import_waits: bool = False
    is_sent_files: bool = False


def _read_work(session: Session, collection_ids: list[int]) -> dict[int, _Work]:
    """The work of many collections, in as many statements as that of one."""
    work = {one: _Work() for one in collection_ids}
    newest = select(func.max(Import.id)).where(is_among(Import.collection_id, collection_ids))
    newest = newest.group_by(Import.collection_id)
    for run in session.scalars(select(Import).where(Import.id.in_(newest))):
        work[run.collection_id].run = run
    builds = (
        select(ImageIndex)
        .filter_by(first_part_id=None)
        .where(is_among(ImageIndex.collection_id, collection_ids), ImageIndex.state != "past")
        .order_by(ImageIndex.id.desc())
    )
    for build in session.scalars(builds):
        work[build.collection_id].builds.append(build)
    imports = is_among(Job.collection_id, collection_ids) & (Job.kind == "import")
    newest = select(func.max(Job.id)).where(imports).group_by(Job.collection_id)
    for job in session.scalars(select(Job).where(Job.id.in_(newest))):
        work[job.collection_id].import_job = job
    waiting = select(Job.collection_id).where(imports, Job.state == "waiting")
    for one in session.scalars(waiting):
        work[one].import_waits = True
    uploads = is_among(Upload.collection_id, collection_ids) & (Upload.state == "receiving")
    for one in session.scalars(select(Upload.collection_id).where(uploads)):
        work[one].is_sent_files = True
    return work


def _tell_preparation(
    session: Session, collection: Collection, work: _Work, now: datetime
) -> Preparation:
    run, builds = work.run, work.builds
    ready = {build.embedder for build in builds if build.state == "ready"}
    # The first index by another embedder is made beside those that searches use: it stops nobody.
    newest = next((build for build in builds if not ready or build.embedder in ready), None)
    how: _How = {"source": collection.source, "labels": None, "copy": False, "at_once": False}
    if run is not None:
        how = {
            "source": run.source,
            "labels": run.labels,
            "copy": run.copy,
            "at_once": run.embedder is not None,
        }
    if (run is None or run.state != "running") and work.import_waits:
        return Preparation("queued", **how)
    if run is not None and run.state == "running":
        # Files known from an earlier run cost no time, so speed is told from the others.
        read_count = run.imported_count + run.duplicate_count + run.refused_count
        per_second = _speed(read_count, run.started_at, run.updated_at)
        return Preparation(
            "importing",
            **how,
            done=run.done_count,
            total=run.found_count,
            per_second=per_second,
            left_s=_time_left(run.found_count - run.done_count, per_second, run.updated_at, now),
            stalled=_is_stalled(run.updated_at, now),
            imported=run.imported_count,
            duplicates=run.duplicate_count,
            refused=run.refused_count,
        )
    if newest is not None and newest.state == "building":
        # Vectors that were there already cost next to no time either.
        made_count = newest.done_count - newest.copied_count
        per_second = _speed(made_count, newest.started_at, newest.updated_at)
        return Preparation(
            "indexing",
            **how,
            done=newest.done_count,
            total=newest.image_count,
            per_second=per_second,
            left_s=_time_left(
                newest.image_count - newest.done_count, per_second, newest.updated_at, now
            ),
            stalled=_is_stalled(newest.updated_at, now),
        )
    problem = None
    if (run is None and newest is None) or (run is not None and _has_begun(work, run)):
        return _tell_unbegun(collection, work, how, now)
    if run is not None and run.state in ("failed", "interrupted"):
        problem = run.problem or "The import was interrupted. What it had imported is kept."
    elif newest is not None and newest.state == "failed":
        problem = newest.problem or "Preparing the images for searching stopped before its end."
    elif run is not None and _awaits_index(session, run, newest):
        return Preparation("loading", **how, stalled=_is_stalled(run.updated_at, now))
    elif newest is None:
        problem = f"There is no image in {how['source']}. Run again when there is one."
    return Preparation("ready" if ready else "stopped", problem=problem, **how)


def describe_collection(session: Session, collection_id: int) -> CollectionFacts:
    """Counts and what the images' metadata says; never their labels."""
    collection = session.get(Collection, collection_id)
    if collection is None:
        raise NotFound("There is no such collection.")
    own = (Image.collection_id == collection_id) & Image.removed_at.is_(None)
    # By camera, and summed here: to count different cameras the database sorts all images.
    by_camera = session.execute(
        select(
            Image.camera,
            func.count(),
            func.sum(Image.size_bytes),
            func.min(Image.captured_at),
            func.max(Image.captured_at),
            func.count(Image.captured_at),
            func.count(Image.latitude),
        )
        .where(own)
        .group_by(Image.camera)
    ).all()
    cameras = [(row[0], row[1]) for row in by_camera if row[0]]
    image_count = sum(row[1] for row in by_camera)
    times = [time for row in by_camera for time in row[3:5] if time is not None]
    paths = session.scalar(select(func.count()).where(ImagePath.collection_id == collection_id))
    of_removed = session.scalar(
        select(func.count())
        .select_from(ImagePath)
        .join(Image, Image.id == ImagePath.image_id)
        .where(Image.collection_id == collection_id, Image.removed_at.is_not(None))
    )
    current = (
        select(func.max(ImageIndex.id))
        .filter_by(collection_id=collection_id, state="ready")
        .scalar_subquery()
    )
    return CollectionFacts(
        collection=collection,
        image_count=image_count,
        duplicate_count=max(0, (paths or 0) - (of_removed or 0) - image_count),
        size_bytes=sum(int(row[2]) for row in by_camera),
        first_captured_at=min(times, default=None),
        last_captured_at=max(times, default=None),
        dated_count=sum(row[5] for row in by_camera),
        placed_count=sum(row[6] for row in by_camera),
        cameras=sorted(cameras, key=lambda one: (-one[1], one[0]))[:CAMERAS_SHOWN],
        camera_count=len(cameras),
        refused=count_refused(session, collection_id),
        unreadable_count=session.scalar(
            select(func.count())
            .select_from(UnreadableImage)
            .where(UnreadableImage.index_id == current)
        )
        or 0,
        removed_count=count_removed(session, collection_id),
        people_count=count_people_images(session, collection_id),
        image_ids=_list_mosaics(session, [collection_id], HEAD_MOSAIC_SIZE)[collection_id],
    )


def count_refused(session: Session, collection_id: int) -> list[tuple[str, int]]:
    """How many files did not become images, by reason, most first."""
    query = (
        select(RefusedFile.reason, func.count())
        .filter_by(collection_id=collection_id)
        .group_by(RefusedFile.reason)
        .order_by(func.count().desc(), RefusedFile.reason)
    )
    return [(reason, count) for reason, count in session.execute(query)]


def list_refused(session: Session, collection_id: int, *, reason: str, page: int) -> RefusedPage:
    """Files that did not become images, all or those with one `reason`."""
    query = select(RefusedFile).filter_by(collection_id=collection_id)
    if reason:
        query = query.filter_by(reason=reason)
    total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    pages = max(1, ceil(total / REFUSED_PER_PAGE))
    page = min(max(1, page), pages)
    shown = query.order_by(RefusedFile.path).limit(REFUSED_PER_PAGE)
    files = session.scalars(shown.offset((page - 1) * REFUSED_PER_PAGE))
    return RefusedPage(list(files), page, pages, total)


def _has_begun(work: _Work, run: Import) -> bool:
    """Whether a job adds images that has listed no file yet: the newest import is of before."""
    job = work.import_job
    return (
        job is not None
        and job.state == "running"
        and job.started_at is not None
        and job.started_at > run.started_at
    )


def _tell_unbegun(collection: Collection, work: _Work, how: _How, now: datetime) -> Preparation:
    """What a collection waits for whose import has not listed a file yet."""
    job = work.import_job
    if job is not None and job.state in ("failed", "stopped"):
        problem = job.problem or "It was stopped before it began."
        return Preparation("stopped", problem=problem, **how)
    if job is None and work.is_sent_files:
        return Preparation("empty", **how)
    # An upload may have taken hours: what counts is when its import was begun.
    begun_at = collection.made_at if job is None else job.started_at or job.made_at
    return Preparation("waiting", **how, stalled=_is_stalled(begun_at, now))


def _speed(done: int, started_at: datetime, updated_at: datetime) -> float | None:
    """Files a second up to the last report, as soon as it can be told."""
    elapsed_s = (updated_at - started_at).total_seconds()
    return done / elapsed_s if done and elapsed_s >= 3 else None


def _time_left(
    to_do: int, per_second: float | None, updated_at: datetime, now: datetime
) -> float | None:
    if not per_second:
        return None
    return max(0.0, to_do / per_second - (now - updated_at).total_seconds())


def _is_stalled(updated_at: datetime, now: datetime) -> bool:
    return (now - updated_at).total_seconds() > STALLED_AFTER_S


def _awaits_index(session: Session, run: Import, newest: ImageIndex | None) -> bool:
    """Whether the import has ended with images that no index has been begun for."""
    if newest is None:
        own = exists().where(Image.collection_id == run.collection_id)
        return bool(session.scalar(select(own)))
    return run.imported_count > 0 and newest.started_at < run.started_at


def _list_mosaics(session: Session, collection_ids: list[int], size: int) -> dict[int, list[int]]:
    """A few images of each collection, in the order of chance."""
    few = (
        select(Image.id, Image.sha256)
        .where(Image.collection_id == Collection.id, Image.removed_at.is_(None))
        .order_by(Image.sha256)
        .limit(size)
        .lateral()
    )
    query = select(Collection.id, few.c.id).join(few, true()).order_by(few.c.sha256)
    mosaics: dict[int, list[int]] = {one: [] for one in collection_ids}
    for collection_id, image_id in session.execute(
        query.where(is_among(Collection.id, collection_ids))
    ):
        mosaics[collection_id].append(image_id)
    return mosaics
