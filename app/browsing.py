"""Looking at a collection before searching it: pages, samples, names, likeness, examples.

Images are paged in the order of their paths. Samples come from the order of their checksums,
which is random and has an index, so a sample costs the same in a collection of any size.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from pathlib import Path
from zipfile import is_zipfile

import numpy as np
from sqlalchemy import ColumnElement, Select, delete, exists, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, joinedload

from app.errors import (
    BadInput,
    LabelsNotUsable,
    NameTaken,
    NotFound,
    RefusedPhoto,
    SourceNotUsable,
)
from app.importing import read_photo
from app.indexing import LoadedEmbedders, OpenIndexes, embed_photo, get_current_index
from app.settings import Settings
from app.tables import (
    Collection,
    Image,
    ImageIndex,
    ImagePath,
    Import,
    OracleLabel,
    Person,
    Photo,
    RefusedFile,
    TrayItem,
    UnreadableImage,
)

IMAGES_PER_PAGE = 60
REFUSED_PER_PAGE = 100
MOSAIC_SIZE = 4
HEAD_MOSAIC_SIZE = 16
SUGGESTIONS = 8
MAX_NAME_LENGTH = 120
CAMERAS_SHOWN = 4
STALLED_AFTER_S = 120  # a chunk of the slowest embedder on one core stays far below


@dataclass(frozen=True)
class Preparation:
    """How far a collection is from being searchable.

    `stage`: waiting, importing, indexing (work goes on), ready, or stopped (somebody must act).
    """

    stage: str
    problem: str | None = None  # of the newest import or index; may stand beside "ready"
    source: str | None = None  # of the newest import
    done: int = 0
    total: int = 0
    per_second: float | None = None
    left_s: float | None = None
    stalled: bool = False  # said nothing for a while
    imported: int = 0
    duplicates: int = 0
    refused: int = 0

    @property
    def is_running(self) -> bool:
        """Whether work goes on, so that a page should look again."""
        return self.stage in ("waiting", "importing", "indexing")


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
    labels_known: bool
    image_ids: list[int]  # for the mosaic


@dataclass(frozen=True)
class ImagesPage:
    """One page of a collection, in the order of its paths."""

    images: list[Image]
    page: int
    pages: int
    total: int


@dataclass(frozen=True)
class NameMatches:
    """Images found by a file name. `kind`: exact, part, nearest, or none."""

    kind: str
    images: list[Image]
    total: int


@dataclass(frozen=True)
class ImageDetails:
    """One image with every path it was found under and its neighbours by path."""

    image: Image
    paths: list[str]
    page: int
    previous_id: int | None
    next_id: int | None


@dataclass(frozen=True)
class RefusedPage:
    """One page of the files that did not become images."""

    files: list[RefusedFile]
    page: int
    pages: int
    total: int


def list_collections(session: Session, *, now: datetime) -> list[CollectionSummary]:
    """Every collection, by name."""
    counts = dict(
        session.execute(select(Image.collection_id, func.count()).group_by(Image.collection_id))
        
        .all()
    )
    return [
        CollectionSummary(
            collection=collection,
            image_count=counts.get(collection.id, 0),
            image_ids=_list_mosaic(session, collection.id, MOSAIC_SIZE),
            preparation=describe_preparation(session, collection, now=now),
        )
        for collection in session.scalars(select(Collection).order_by(Collection.name))
    ]


def add_collection(session: Session, *, name: str, source: Path, person: Person) -> Collection:
    """A new, empty collection; raises NameTaken or BadInput with a sentence."""
    name = " ".join(name.split())
    if not name:
        raise BadInput("Give the collection a name.")
    if len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise BadInput(f"A name has at most {MAX_NAME_LENGTH} characters, all of them printable.")
    if session.scalar(select(exists().where(func.lower(Collection.name) == name.lower()))):
        raise NameTaken(f"There is a collection “{name}” already. Choose another name.")
    collection = Collection(name=name, source=str(source), made_by_id=person.id)
    session.add(collection)
    session.flush()
    return collection


def check_source(typed: str) -> Path:
    """The folder or zip file that `typed` names; raises SourceNotUsable with a sentence."""
    if not typed.strip() or "\x00" in typed:
        raise SourceNotUsable("Type the path of a folder or of a zip file.")
    source = Path(typed.strip()).expanduser()
    if not source.is_absolute():
        raise SourceNotUsable(f"“{source}” is not a full path. Begin at the root, such as /data.")
    try:
        if source.is_dir():
            next(source.iterdir(), None)
        elif source.is_file():
            with source.open("rb") as file:
                if not is_zipfile(file):
                    raise SourceNotUsable(f"{source} is neither a folder nor a zip file.")
        else:
            raise SourceNotUsable(
                f"There is no {source} on the machine where Rarefind runs. Check the spelling."
            )
    except OSError as error:
        raise SourceNotUsable(
            f"Rarefind can't read {source}: {error.strerror}. Give it the right to, or choose "
            "another folder."
        ) from error
    return source


def check_labels(typed: str) -> Path:
    """The CSV file of labels that `typed` names; raises LabelsNotUsable with a sentence."""
    if not typed.strip() or "\x00" in typed:
        raise LabelsNotUsable("Type the path of the CSV file, or choose another kind of labels.")
    path = Path(typed.strip()).expanduser()
    if not (path.is_absolute() and path.is_file()):
        raise LabelsNotUsable(f"There is no file {path} on the machine where Rarefind runs.")
    return path


def get_collection(session: Session, collection_id: int) -> Collection:
    """The collection, or NotFound."""
    collection = session.get(Collection, collection_id)
    if collection is None:
        raise NotFound("There is no such collection.")
    return collection


def describe_preparation(session: Session, collection: Collection, *, now: datetime) -> Preparation:
    """What the newest import and the newest index say together."""
    run = session.scalar(
        select(Import).filter_by(collection_id=collection.id).order_by(Import.id.desc()).limit(1)
    )
    builds = session.scalars(
        select(ImageIndex).filter_by(collection_id=collection.id).order_by(ImageIndex.id.desc())
    ).all()
    newest = builds[0] if builds else None
    if run is not None and run.state == "running":
        # Files known from an earlier run cost no time, so speed is told from the others.
        read_count = run.imported_count + run.duplicate_count + run.refused_count
        per_second = _speed(read_count, run.started_at, now)
        return Preparation(
            "importing",
            source=run.source,
            done=run.done_count,
            total=run.found_count,
            per_second=per_second,
            left_s=_time_left(run.found_count - run.done_count, per_second),
            stalled=_is_stalled(run.updated_at, now),
            imported=run.imported_count,
            duplicates=run.duplicate_count,
            refused=run.refused_count,
        )
    source = run.source if run else collection.source
    if newest is not None and newest.state == "building":
        per_second = _speed(newest.done_count, newest.started_at, now)
        return Preparation(
            "indexing",
            source=source,
            done=newest.done_count,
            total=newest.image_count,
            per_second=per_second,
            left_s=_time_left(newest.image_count - newest.done_count, per_second),
            stalled=_is_stalled(newest.updated_at, now),
        )
    problem = None
    if run is None and newest is None:
        return Preparation("waiting", source=source, stalled=_is_stalled(collection.made_at, now))
    if run is not None and run.state in ("failed", "interrupted"):
        problem = run.problem or "The import was interrupted. What it had imported is kept."
    elif newest is not None and newest.state == "failed":
        problem = newest.problem or "Preparing the images for searching stopped before its end."
    elif run is not None and _awaits_index(session, run, newest):
        return Preparation("waiting", source=source, stalled=_is_stalled(run.updated_at, now))
    elif newest is None:
        problem = f"There is no image in {source}. Run again when there is one."
    is_ready = any(build.state == "ready" for build in builds)
    return Preparation("ready" if is_ready else "stopped", problem=problem, source=source)


def describe_collection(session: Session, collection_id: int) -> CollectionFacts:
    """Counts and what the images' metadata says; never their labels."""
    collection = get_collection(session, collection_id)
    own = Image.collection_id == collection_id
    totals = session.execute(
        select(
            func.count(),
            func.coalesce(func.sum(Image.size_bytes), 0),
            func.min(Image.captured_at),
            func.max(Image.captured_at),
            func.count(Image.captured_at),
            func.count(Image.latitude),
            func.count(Image.camera.distinct()),
        ).where(own)
    ).one()
    image_count, size_bytes, first, last, dated, placed, camera_count = totals
    cameras = session.execute(
        select(Image.camera, func.count())
        .where(own, Image.camera.is_not(None))
        .group_by(Image.camera)
        .order_by(func.count().desc(), Image.camera)
        .limit(CAMERAS_SHOWN)
    )
    refused = session.execute(
        select(RefusedFile.reason, func.count())
        .filter_by(collection_id=collection_id)
        .group_by(RefusedFile.reason)
        .order_by(func.count().desc(), RefusedFile.reason)
    )
    paths = session.scalar(
        select(func.count()).select_from(ImagePath).filter_by(collection_id=collection_id)
    )
    current = (
        select(func.max(ImageIndex.id))
        .filter_by(collection_id=collection_id, state="ready")
        .scalar_subquery()
    )
    return CollectionFacts(
        collection=collection,
        image_count=image_count,
        duplicate_count=max(0, (paths or 0) - image_count),
        size_bytes=int(size_bytes),
        first_captured_at=first,
        last_captured_at=last,
        dated_count=dated,
        placed_count=placed,
        cameras=[(camera, count) for camera, count in cameras],
        camera_count=camera_count,
        refused=[(reason, count) for reason, count in refused],
        unreadable_count=session.scalar(
            select(func.count())
            .select_from(UnreadableImage)
            .where(UnreadableImage.index_id == current)
        )
        or 0,
        labels_known=bool(
            session.scalar(
                select(exists().where(OracleLabel.image_id == Image.id, own).correlate(None))
            )
        ),
        image_ids=_list_mosaic(session, collection_id, HEAD_MOSAIC_SIZE),
    )


def list_images(session: Session, collection_id: int, *, page: int) -> ImagesPage:
    """One page; a page past the end is the last one."""
    total = _count_images(session, collection_id)
    pages = max(1, ceil(total / IMAGES_PER_PAGE))
    page = min(max(1, page), pages)
    # Ids come from the index alone; only the page's own rows are read.
    shown = (
        select(Image.id)
        .filter_by(collection_id=collection_id)
        .order_by(Image.path, Image.id)
        .limit(IMAGES_PER_PAGE)
        .offset((page - 1) * IMAGES_PER_PAGE)
    )
    query = select(Image).where(Image.id.in_(shown)).order_by(Image.path, Image.id)
    return ImagesPage(list(session.scalars(query)), page, pages, total)


def sample_images(session: Session, collection_id: int, *, seed: int) -> list[Image]:
    """A random page of images; the same `seed` gives the same page."""
    start = hashlib.sha256(str(seed).encode()).hexdigest()
    query = select(Image).filter_by(collection_id=collection_id).order_by(Image.sha256)
    images = list(session.scalars(query.where(Image.sha256 >= start).limit(IMAGES_PER_PAGE)))
    missing = IMAGES_PER_PAGE - len(images)
    if missing:
        images += session.scalars(query.where(Image.sha256 < start).limit(missing))
    return images


def find_by_name(session: Session, collection_id: int, name: str) -> NameMatches:
    """Images whose file name is `name`, else has it as a part, else the nearest in the alphabet.

    Every path under which an image was found counts, so duplicates are found by either name.
    """
    name = name.strip().strip("/")
    if not name or "\x00" in name:
        return NameMatches("none", [], 0)
    for kind, condition in (("exact", _is_named(name)), ("part", _has_in_name(name))):
        found = _match(collection_id, condition)
        total = session.scalar(select(func.count()).select_from(found.subquery())) or 0
        if total:
            query = (
                select(Image)
                .where(Image.id.in_(found))
                .order_by(Image.path, Image.id)
                .limit(IMAGES_PER_PAGE)
            )
            return NameMatches(kind, list(session.scalars(query)), total)
    nearest = _find_nearest_name(session, collection_id, name)
    return NameMatches("nearest", [nearest], 1) if nearest else NameMatches("none", [], 0)


def suggest_names(session: Session, collection_id: int, part: str) -> list[str]:
    """A few paths with `part` in their file name, those that begin with it first."""
    part = part.strip()
    if len(part) < 2 or "\x00" in part:
        return []
    begins = _file_name().istartswith(part, autoescape=True)
    query = (
        select(ImagePath.path)
        .where(ImagePath.collection_id == collection_id, _has_in_name(part))
        .order_by(begins.desc(), ImagePath.path)
        .limit(SUGGESTIONS)
    )
    return list(session.scalars(query))


def find_page_of(session: Session, image: Image) -> int:
    """The page of its collection that shows `image`."""
    before = session.scalar(
        select(func.count())
        .select_from(Image)
        .where(
            Image.collection_id == image.collection_id,
            tuple_(Image.path, Image.id) < tuple_(image.path, image.id),
        )
    )
    return (before or 0) // IMAGES_PER_PAGE + 1


def get_image(session: Session, image_id: int, *, collection_id: int | None = None) -> Image:
    """The image (of that collection, if one is given), or NotFound."""
    image = session.get(Image, image_id)
    if image is None or collection_id not in (None, image.collection_id):
        raise NotFound("There is no such image in this collection.")
    return image


def describe_image(session: Session, collection_id: int, image_id: int) -> ImageDetails:
    """An image, its paths, and the images before and after it."""
    image = get_image(session, image_id, collection_id=collection_id)
    here = tuple_(image.path, image.id)
    place = tuple_(Image.path, Image.id)
    ids = select(Image.id).filter_by(collection_id=collection_id).limit(1)
    before = ids.where(place < here).order_by(Image.path.desc(), Image.id.desc())
    after = ids.where(place > here).order_by(Image.path, Image.id)
    paths = select(ImagePath.path).filter_by(image_id=image.id).order_by(ImagePath.path)
    return ImageDetails(
        image=image,
        paths=list(session.scalars(paths)),
        page=find_page_of(session, image),
        previous_id=session.scalar(before),
        next_id=session.scalar(after),
    )


def find_similar(
    session: Session,
    collection_id: int,
    like: Image | Photo,
    *,
    indexes: OpenIndexes,
    embedders: LoadedEmbedders,
    settings: Settings,
) -> list[tuple[Image, float]]:
    """The images most like one of the collection, or like a photo, with their similarity."""
    index_row = get_current_index(session, collection_id)
    index = indexes.get(index_row)
    if isinstance(like, Photo):
        vector = embed_photo(like, embedders.get(index_row), settings=settings)
        own_id = None
    else:
        if like.id not in index.image_ids:
            raise BadInput(
                "This image is not among the prepared ones yet, so nothing like it can be found. "
                "Try again when the collection's preparation has ended."
            )
        vector = index.vectors[index.rows_of([like.id])][0]
        own_id = like.id
    similarities, rows = index.nearest(vector[np.newaxis], IMAGES_PER_PAGE + 1)
    similar = {
        int(image_id): float(similarity)
        for image_id, similarity in zip(index.image_ids[rows[0]], similarities[0], strict=True)
        if image_id != own_id
    }
    images = session.scalars(select(Image).where(Image.id.in_(similar)))
    by_id = {image.id: image for image in images}
    nearest = list(similar.items())[:IMAGES_PER_PAGE]
    return [(by_id[image_id], similarity) for image_id, similarity in nearest]


def list_tray(session: Session, person: Person, collection_id: int) -> list[TrayItem]:
    """The examples picked so far, in the order of picking."""
    query = (
        select(TrayItem)
        .filter_by(person_id=person.id, collection_id=collection_id)
        .options(joinedload(TrayItem.image), joinedload(TrayItem.photo))
        .order_by(TrayItem.id)
    )
    return list(session.scalars(query))


def add_image_to_tray(session: Session, person: Person, collection_id: int, image_id: int) -> None:
    """Pick an image as an example; picking it again changes nothing."""
    get_image(session, image_id, collection_id=collection_id)
    _add_to_tray(session, person, collection_id, image_id=image_id)


def add_photo_to_tray(
    session: Session,
    person: Person,
    collection_id: int,
    *,
    name: str,
    data: bytes,
    settings: Settings,
) -> Photo:
    """Keep a photo from the person's disk as an example; raises RefusedPhoto with a sentence."""
    get_collection(session, collection_id)
    photo = _keep_photo(session, person, name=name, data=data, settings=settings)
    _add_to_tray(session, person, collection_id, photo_id=photo.id)
    return photo


def remove_from_tray(
    session: Session,
    person: Person,
    collection_id: int,
    *,
    image_ids: Sequence[int] = (),
    photo_ids: Sequence[int] = (),
) -> None:
    """Take examples out; those that are not in the tray are no error."""
    session.execute(
        delete(TrayItem).where(
            TrayItem.person_id == person.id,
            TrayItem.collection_id == collection_id,
            TrayItem.image_id.in_(image_ids) | TrayItem.photo_id.in_(photo_ids),
        )
    )


def get_photo(session: Session, person: Person, photo_id: int) -> Photo:
    """A photo the person uploaded, or NotFound."""
    photo = session.get(Photo, photo_id)
    if photo is None or photo.person_id != person.id:
        raise NotFound("There is no such photo, or it belongs to somebody else.")
    return photo


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


def _speed(done: int, started_at: datetime, now: datetime) -> float | None:
    """Files a second, as soon as it can be told."""
    elapsed_s = (now - started_at).total_seconds()
    return done / elapsed_s if done and elapsed_s >= 1 else None


def _time_left(to_do: int, per_second: float | None) -> float | None:
    return max(0, to_do) / per_second if per_second else None


def _is_stalled(updated_at: datetime, now: datetime) -> bool:
    return (now - updated_at).total_seconds() > STALLED_AFTER_S


def _awaits_index(session: Session, run: Import, newest: ImageIndex | None) -> bool:
    """Whether the import has ended with images that no index has been begun for."""
    if newest is None:
        own = exists().where(Image.collection_id == run.collection_id)
        return bool(session.scalar(select(own)))
    return run.imported_count > 0 and newest.started_at < run.started_at


def _list_mosaic(session: Session, collection_id: int, size: int) -> list[int]:
    query = select(Image.id).filter_by(collection_id=collection_id).order_by(Image.sha256)
    return list(session.scalars(query.limit(size)))


def _count_images(session: Session, collection_id: int) -> int:
    query = select(func.count()).select_from(Image).filter_by(collection_id=collection_id)
    return session.scalar(query) or 0


def _match(collection_id: int, condition: ColumnElement[bool]) -> Select[tuple[int]]:
    return (
        select(ImagePath.image_id)
        .where(ImagePath.collection_id == collection_id, condition)
        .distinct()
    )


def _file_name() -> ColumnElement[str]:
    return func.regexp_replace(ImagePath.path, "^.*/", "")


def _is_named(name: str) -> ColumnElement[bool]:
    """A whole path, or the end of one."""
    return (func.lower(ImagePath.path) == func.lower(name)) | ImagePath.path.iendswith(
        f"/{name}", autoescape=True
    )


def _has_in_name(part: str) -> ColumnElement[bool]:
    """In the file name; in the whole path when `part` names a folder too."""
    where = ImagePath.path if "/" in part else _file_name()
    return where.icontains(part, autoescape=True)


def _find_nearest_name(session: Session, collection_id: int, name: str) -> Image | None:
    """The file before or after `name` in the alphabet, whichever shares more of its beginning."""
    wanted = func.lower(Path(name).name)
    own_name = func.lower(_file_name())
    query = (
        select(ImagePath.image_id, own_name)
        .where(ImagePath.collection_id == collection_id)
        .limit(1)
    )
    neighbours = [
        *session.execute(query.where(own_name < wanted).order_by(own_name.desc())),
        *session.execute(query.where(own_name > wanted).order_by(own_name)),
    ]
    if not neighbours:
        return None
    image_id, _ = max(neighbours, key=lambda row: _shared_length(row[1], Path(name).name.lower()))
    return session.get(Image, image_id)


def _shared_length(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _keep_photo(
    session: Session, person: Person, *, name: str, data: bytes, settings: Settings
) -> Photo:
    """The person's photo with this content, added if it is new."""
    try:
        read = read_photo(data, settings=settings)
    except RefusedPhoto as error:
        raise RefusedPhoto(f"{name}: {error}") from error
    photo = session.scalar(
        select(Photo).filter_by(person_id=person.id, sha256=read.sha256).limit(1)
    )
    if photo is None:
        photo = Photo(
            person_id=person.id,
            name=name,
            sha256=read.sha256,
            width=read.width,
            height=read.height,
        )
        session.add(photo)
        session.flush()
    return photo


def _add_to_tray(
    session: Session,
    person: Person,
    collection_id: int,
    *,
    image_id: int | None = None,
    photo_id: int | None = None,
) -> None:
    item = {
        "person_id": person.id,
        "collection_id": collection_id,
        "image_id": image_id,
        "photo_id": photo_id,
    }
    session.execute(insert(TrayItem).values(item).on_conflict_do_nothing())
