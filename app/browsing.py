"""Looking at a collection before searching it: pages, samples, names, likeness, examples.

Images are paged in the order of their paths, of their file names, of when they were taken, or the
newest first; each has an index. Samples come from the order of their checksums,
which is random and has an index, so a sample costs the same in a collection of any size.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    delete,
    func,
    literal,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, joinedload

from app.deploying import MOST_FOLDERS
from app.detecting import list_boxes
from app.engine.index import Integers as Rows
from app.engine.index import VectorIndex
from app.errors import BadInput, NotFound, RefusedPhoto
from app.filtering import NEVER, WHEN_TAKEN, Filter, list_image_ids, to_condition
from app.importing import read_photo
from app.indexes import choose_index, embed_example_photo, embed_words
from app.indexing import LoadedEmbedders, OpenIndexes, get_current_index
from app.premises import list_left_out
from app.settings import Settings
from app.tables import FILE_NAME, Box, Image, ImagePath, Person, Photo, TrayItem
from app.workers import Readers

IMAGES_PER_PAGE = 60
FEW = 1_000  # images that a filter keeps, of any number
EVERY_IMAGE = Filter()
SUGGESTIONS = 8
MOST_BY_WORDS = 6_000  # a hundred pages: whoever looks further says it in other words
# As the index has it: to the letter, or the database reads every path.
OWN_NAME: ColumnElement[str] = literal_column(FILE_NAME, String)
MOST_BESIDE = 4  # on either side of an image


@dataclass(frozen=True)
class Order:
    """An order of a collection's images; those with the same key are in the order of their ids."""

    key: ColumnElement[Any]
    newest_first: bool = False

    def sort(self, *, backwards: bool = False) -> list[ColumnElement[Any]]:
        """What to order by."""
        is_falling = self.newest_first != backwards
        return [one.desc() if is_falling else one.asc() for one in (self.key, Image.id.expression)]

    def is_beyond(self, session: Session, image: Image, *, before: bool) -> ColumnElement[bool]:
        """The condition that an image comes before this one, or after it."""
        value = session.scalar(select(self.key).where(Image.id == image.id))
        place = tuple_(self.key, Image.id)
        here = tuple_(literal(value, self.key.type), literal(image.id))
        return place < here if before != self.newest_first else place > here


ORDERS = {
    "path": Order(Image.path.expression),
    "name": Order(OWN_NAME),
    "taken": Order(WHEN_TAKEN),
    "added": Order(Image.id.expression, newest_first=True),
}


@dataclass(frozen=True)
class ImagesPage:
    """One page of a collection, in one of its orders."""

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
class WordMatches:
    """One page of the images that fit words, the best first, by their similarity."""

    images: list[Image]
    similarities: list[float]
    page: int
    pages: int
    embedder: str


@dataclass(frozen=True)
class ImageDetails:
    """One image with every path it was found under and its neighbours in an order."""

    image: Image
    paths: list[str]
    page: int
    previous_id: int | None
    next_id: int | None
    boxes: list[Box]  # that a detector drew


def list_images(
    session: Session,
    collection_id: int,
    *,
    page: int,
    chosen: Filter = EVERY_IMAGE,
    order: str = "path",
) -> ImagesPage:
    """One page of the images a filter keeps; a page past the end is the last one."""
    total = _count_images(session, collection_id, chosen)
    pages = max(1, ceil(total / IMAGES_PER_PAGE))
    page = min(max(1, page), pages)
    # Ids come from the index alone; only the page's own rows are read.
    kept = select(Image.id).filter_by(collection_id=collection_id, removed_at=None)
    kept = kept.where(to_condition(chosen))
    if total <= FEW:  # to come upon them in order, an index would be followed to its end
        kept = select(Image.id).where(Image.id.in_(kept.offset(0)))  # first found, then sorted
    shown = (
        kept.order_by(*ORDERS[order].sort())
        .limit(IMAGES_PER_PAGE)
        .offset((page - 1) * IMAGES_PER_PAGE)
    )
    query = select(Image).where(Image.id.in_(shown)).order_by(*ORDERS[order].sort())
    return ImagesPage(list(session.scalars(query)), page, pages, total)


def list_orders(session: Session, collection_id: int, *, with_folders: bool) -> list[str]:
    """The orders to choose among, the usual one first; by time where any is known."""
    first = "path" if with_folders else "name"  # paths would put those of a folder together
    timed = select(Image.id).where(Image.collection_id == collection_id, WHEN_TAKEN < NEVER)
    is_timed = session.scalar(timed.limit(1)) is not None
    return [first, "taken", "added"] if is_timed else [first, "added"]


def list_subfolders(
    session: Session, collection_id: int, within: str, *, chosen: Filter = EVERY_IMAGE
) -> list[tuple[str, int]]:
    """The folders right inside one, "" for all of them, with the images in and under each.

    Of the images that a filter keeps, and at most MOST_FOLDERS.
    """
    start = f"{within}/" if within else ""
    rest = func.substr(Image.path, len(start) + 1)
    name = func.split_part(rest, "/", 1)
    rows = session.execute(
        select(name, func.count())
        .where(
            Image.collection_id == collection_id,
            Image.removed_at.is_(None),
            Image.path.startswith(start, autoescape=True),
            func.strpos(rest, "/") > 0,
            to_condition(chosen),
        )
        .group_by(name)
        .order_by(name)
        .limit(MOST_FOLDERS)
    )
    return [(folder, count) for folder, count in rows]


def list_images_after(
    session: Session,
    collection_id: int,
    *,
    image_id: int,
    at_most: int,
    chosen: Filter = EVERY_IMAGE,
) -> list[Image]:
    """Images by number, those after `image_id`: how a program reads all of them, in parts."""
    query = select(Image).filter_by(collection_id=collection_id, removed_at=None)
    query = query.where(Image.id > image_id, to_condition(chosen)).order_by(Image.id)
    return list(session.scalars(query.limit(at_most)))


def sample_images(
    session: Session, collection_id: int, *, seed: int, chosen: Filter = EVERY_IMAGE
) -> list[Image]:
    """A random page of the images a filter keeps; the same `seed` gives the same page."""
    start = hashlib.sha256(str(seed).encode()).hexdigest()
    query = select(Image).filter_by(collection_id=collection_id, removed_at=None)
    query = query.where(to_condition(chosen)).order_by(Image.sha256)
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
    conditions = (
        ("exact", ImagePath.path == name),  # as suggestions give it; has an index
        ("exact", _is_named(name)),
        ("part", _has_in_name(name)),
    )
    for kind, condition in conditions:
        found = select(ImagePath.image_id).where(
            ImagePath.collection_id == collection_id, condition
        )
        rows = session.execute(
            select(Image, func.count().over())
            .where(Image.id.in_(found), Image.removed_at.is_(None))
            .order_by(Image.path, Image.id)
            .limit(IMAGES_PER_PAGE)
        ).all()
        if rows:
            return NameMatches(kind, [image for image, _ in rows], rows[0][1])
    nearest = _find_nearest_name(session, collection_id, name)
    return NameMatches("nearest", [nearest], 1) if nearest else NameMatches("none", [], 0)


def suggest_names(session: Session, collection_id: int, part: str) -> list[str]:
    """A few paths whose file name begins with `part`; without any, those that have it inside."""
    part = part.strip()
    if len(part) < 2 or "\x00" in part:
        return []
    removed = _select_removed(collection_id)
    paths = select(ImagePath.path).where(
        ImagePath.collection_id == collection_id, ImagePath.image_id.not_in(removed)
    )
    begins = paths.where(OWN_NAME.startswith(part.lower(), autoescape=True)).order_by(OWN_NAME)
    found = list(session.scalars(begins.limit(SUGGESTIONS)))
    if found:
        return found
    inside = paths.where(_has_in_name(part)).order_by(ImagePath.path)
    return list(session.scalars(inside.limit(SUGGESTIONS)))


def find_page_of(
    session: Session, image: Image, *, chosen: Filter = EVERY_IMAGE, order: str = "path"
) -> int:
    """The page of its collection, as a filter keeps it, that shows `image`."""
    before = session.scalar(
        select(func.count())
        .select_from(Image)
        .where(
            Image.collection_id == image.collection_id,
            Image.removed_at.is_(None),
            ORDERS[order].is_beyond(session, image, before=True),
            to_condition(chosen),
        )
    )
    return (before or 0) // IMAGES_PER_PAGE + 1


def get_image(session: Session, image_id: int, *, collection_id: int | None = None) -> Image:
    """The image (of that collection, if one is given), or NotFound."""
    image = session.get(Image, image_id)
    if image is None or collection_id not in (None, image.collection_id):
        raise NotFound("There is no such image in this collection.")
    return image


def describe_image(
    session: Session,
    collection_id: int,
    image_id: int,
    *,
    chosen: Filter = EVERY_IMAGE,
    order: str = "path",
) -> ImageDetails:
    """An image, its paths, and the images before and after it that a filter keeps."""
    image = get_image(session, image_id, collection_id=collection_id)
    ids = select(Image.id).filter_by(collection_id=collection_id, removed_at=None)
    ids = ids.where(to_condition(chosen)).limit(1)
    by = ORDERS[order]
    before = ids.where(by.is_beyond(session, image, before=True)).order_by(*by.sort(backwards=True))
    after = ids.where(by.is_beyond(session, image, before=False)).order_by(*by.sort())
    paths = select(ImagePath.path).filter_by(image_id=image.id).order_by(ImagePath.path)
    return ImageDetails(
        image=image,
        paths=list(session.scalars(paths)),
        page=find_page_of(session, image, chosen=chosen, order=order),
        previous_id=session.scalar(before),
        next_id=session.scalar(after),
        boxes=list_boxes(session, [image.id]).get(image.id, []),
    )


def list_beside(session: Session, image: Image) -> list[int]:
    """An image among those right before and after it in its folder, by path; none if it is alone.

    What bursts are where images have no time: cameras number their files one after the other.
    """
    folder, _, _ = image.path.rpartition("/")
    within = f"{folder}/" if folder else ""
    ids = (
        select(Image.id)
        .filter_by(collection_id=image.collection_id, removed_at=None)
        .where(
            Image.path.startswith(within, autoescape=True),
            ~func.substr(Image.path, len(within) + 1).contains("/"),
        )
    )
    by = ORDERS["path"]

    def list_some(*, before: bool) -> list[int]:
        beyond = ids.where(by.is_beyond(session, image, before=before))
        beyond = beyond.order_by(*by.sort(backwards=before)).limit(MOST_BESIDE)
        return list(session.scalars(beyond))

    beside = [*reversed(list_some(before=True)), image.id, *list_some(before=False)]
    return beside if len(beside) > 1 else []


def find_similar(
    session: Session,
    collection_id: int,
    like: Image | Photo,
    *,
    chosen: Filter = EVERY_IMAGE,
    indexes: OpenIndexes,
    embedders: LoadedEmbedders,
    settings: Settings,
) -> list[tuple[Image, float]]:
    """The images most like one of the collection, or like a photo, with their similarity.

    Only those that a filter keeps.
    """
    index_row = get_current_index(session, collection_id)
    index = indexes.get(index_row)
    if isinstance(like, Photo):
        vector = embed_example_photo(
            session, like, index_row, embedders=embedders, settings=settings
        )
        own_id = None
    else:
        if not index.holds([like.id])[0]:
            raise BadInput(
                "This image is not among the prepared ones yet, so nothing like it can be found. "
                "Try again when the collection's preparation has ended."
            )
        vector = index.vectors[index.rows_of([like.id])][0]
        own_id = like.id
    similarities, rows = index.nearest(
        vector[np.newaxis],
        IMAGES_PER_PAGE + 1,
        rows=_list_rows(session, collection_id, index, chosen),
    )
    similar = {
        int(image_id): float(similarity)
        for image_id, similarity in zip(index.image_ids[rows[0]], similarities[0], strict=True)
        if image_id != own_id
    }
    images = session.scalars(select(Image).where(Image.id.in_(similar)))
    by_id = {image.id: image for image in images}
    nearest = list(similar.items())[:IMAGES_PER_PAGE]
    return [(by_id[image_id], similarity) for image_id, similarity in nearest]


def find_by_words(
    session: Session,
    collection_id: int,
    words: str,
    *,
    page: int,
    chosen: Filter = EVERY_IMAGE,
    indexes: OpenIndexes,
    embedders: LoadedEmbedders,
) -> WordMatches:
    """The images a filter keeps that fit words best, a page with their similarity, or NoWords."""
    index_row = choose_index(session, collection_id, words=words)
    vector = embed_words(session, words, index_row, embedders=embedders)
    index = indexes.get(index_row)
    allowed = _list_rows(session, collection_id, index, chosen)
    total = min(index.count if allowed is None else len(allowed), MOST_BY_WORDS)
    pages = max(1, ceil(total / IMAGES_PER_PAGE))
    page = min(max(1, page), pages)
    count = min(total, page * IMAGES_PER_PAGE)
    similarities, rows = index.nearest(vector[np.newaxis], count, rows=allowed)
    start = (page - 1) * IMAGES_PER_PAGE
    image_ids = index.image_ids[rows[0, start:]].tolist()
    known = session.scalars(select(Image).where(Image.id.in_(image_ids)))
    by_id = {image.id: image for image in known}
    return WordMatches(
        images=[by_id[image_id] for image_id in image_ids],
        similarities=similarities[0, start:].tolist(),
        page=page,
        pages=pages,
        embedder=index_row.embedder,
    )


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
    image = get_image(session, image_id, collection_id=collection_id)
    if image.removed_at is not None:
        raise BadInput("This image was removed from the collection. Put it back to use it.")
    _add_to_tray(session, person, collection_id, image_id=image_id)


def add_photo_to_tray(
    session: Session,
    person: Person,
    collection_id: int,
    *,
    name: str,
    data: bytes,
    settings: Settings,
    readers: Readers,
    opening_key: str | None = None,
) -> Photo:
    """Keep a photo from the person's disk as an example; raises RefusedPhoto with a sentence.

    `opening_key`: of the form for a new search in which it was added.
    """
    photo = _keep_photo(session, person, name=name, data=data, settings=settings, readers=readers)
    _add_to_tray(session, person, collection_id, photo_id=photo.id, opening_key=opening_key)
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


def _count_images(session: Session, collection_id: int, chosen: Filter) -> int:
    query = select(func.count()).select_from(Image).where(to_condition(chosen))
    return session.scalar(query.filter_by(collection_id=collection_id, removed_at=None)) or 0


def _select_removed(collection_id: int) -> Select[int]:
    return select(Image.id).where(
        Image.collection_id == collection_id, Image.removed_at.is_not(None)
    )


def _list_rows(
    session: Session, collection_id: int, index: VectorIndex, chosen: Filter
) -> Rows | None:
    """The rows that a filter keeps, without removed images; None while those are all."""
    if chosen:
        kept = list_image_ids(session, collection_id, chosen)
        return np.flatnonzero(np.isin(index.image_ids, kept))
    left_out = list_left_out(session, collection_id, index)
    return np.flatnonzero(~np.isin(index.image_ids, left_out)) if left_out else None


def _is_named(name: str) -> ColumnElement[bool]:
    """A file name, or the end of a path with its folders."""
    own_name = OWN_NAME.in_([PurePosixPath(name).name.lower()])
    if "/" not in name:
        return own_name
    return own_name & (
        (func.lower(ImagePath.path) == func.lower(name))
        | ImagePath.path.iendswith(f"/{name}", autoescape=True)
    )


def _has_in_name(part: str) -> ColumnElement[bool]:
    """In the file name; in the whole path when `part` names a folder too."""
    where = ImagePath.path if "/" in part else OWN_NAME
    return where.icontains(part, autoescape=True)


def _find_nearest_name(session: Session, collection_id: int, name: str) -> Image | None:
    """The file before or after `name` in the alphabet, whichever shares more of its beginning."""
    name = PurePosixPath(name).name.lower()
    query = (
        select(ImagePath.image_id, OWN_NAME)
        .where(
            ImagePath.collection_id == collection_id,
            ImagePath.image_id.not_in(_select_removed(collection_id)),
        )
        .limit(1)
    )
    neighbours = [
        *session.execute(query.where(name > OWN_NAME).order_by(OWN_NAME.desc())),
        *session.execute(query.where(name < OWN_NAME).order_by(OWN_NAME)),
    ]
    if not neighbours:
        return None
    image_id, _ = max(neighbours, key=lambda row: _shared_length(row[1], name))
    return session.get(Image, image_id)


def _shared_length(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _keep_photo(
    session: Session,
    person: Person,
    *,
    name: str,
    data: bytes,
    settings: Settings,
    readers: Readers,
) -> Photo:
    """The person's photo with this content, added if it is new."""
    try:
        read = read_photo(data, settings=settings, readers=readers)
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
    opening_key: str | None = None,
) -> None:
    item = {
        "person_id": person.id,
        "collection_id": collection_id,
        "image_id": image_id,
        "photo_id": photo_id,
        "opening_key": opening_key,
    }
    session.execute(insert(TrayItem).values(item).on_conflict_do_nothing())
