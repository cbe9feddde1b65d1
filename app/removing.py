"""Remove images from a collection, and put them back.

A removed image keeps its row, its answers and its files; it is only left out wherever images are
shown, counted, exported or learned from. Originals are never touched. Indexes that still hold it
stay as they are: rounds leave it out, and the next index is made without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from app.audit import note
from app.database import is_among
from app.errors import BadInput
from app.tables import Answer, Collection, Image, ImagePath, Person, TrayItem

IMAGES_PER_PAGE = 60
NAMED = 5  # of a list's names that no image has
# Images of people are removed too, but put back elsewhere: app/sensitive.py.
_SHOWS_NOBODY = Image.shows_people.is_not(True)


@dataclass(frozen=True)
class Removal:
    """What removing images will mean."""

    images: list[Image]
    answer_count: int  # that stand on them
    search_count: int  # in which


@dataclass(frozen=True)
class RemovedPage:
    """One page of a collection's removed images, the last removed first."""

    images: list[Image]
    page: int
    pages: int
    total: int


def describe_removal(session: Session, collection_id: int, image_ids: Sequence[int]) -> Removal:
    """The images of the collection among those given, and the answers on them."""
    images = session.scalars(
        select(Image)
        .where(
            Image.collection_id == collection_id,
            Image.removed_at.is_(None),
            is_among(Image.id, list(image_ids)),
        )
        .order_by(Image.path, Image.id)
    ).all()
    newest = (
        select(Answer.search_id, Answer.image_id, Answer.value)
        .where(is_among(Answer.image_id, [image.id for image in images]))
        .order_by(Answer.search_id, Answer.image_id, Answer.id.desc())
        .ext(distinct_on(Answer.search_id, Answer.image_id))
        .subquery()
    )
    answer_count, search_count = session.execute(
        select(func.count(), func.count(newest.c.search_id.distinct())).where(
            newest.c.value != "cleared"
        )
    ).one()
    return Removal(list(images), answer_count, search_count)


def remove_images(
    session: Session, collection_id: int, image_ids: Sequence[int], *, person: Person
) -> int:
    """Remove images of the collection; how many were there. Removing one twice changes nothing."""
    removed = session.scalars(
        update(Image)
        .where(
            Image.collection_id == collection_id,
            Image.removed_at.is_(None),
            is_among(Image.id, list(image_ids)),
        )
        .values(removed_at=func.now(), removed_by_id=person.id)
        .returning(Image.id)
    ).all()
    gone: list[int | None] = [*removed]
    session.execute(delete(TrayItem).where(is_among(TrayItem.image_id, gone)))
    _note(session, person, collection_id, "Removed", len(removed))
    return len(removed)


def put_back_images(
    session: Session, collection_id: int, image_ids: Sequence[int], *, person: Person
) -> int:
    """Put removed images of the collection back, with their answers; how many."""
    put_back = session.scalars(
        update(Image)
        .where(
            Image.collection_id == collection_id,
            Image.removed_at.is_not(None),
            _SHOWS_NOBODY,
            is_among(Image.id, list(image_ids)),
        )
        .values(removed_at=None, removed_by_id=None)
        .returning(Image.id)
    ).all()
    _note(session, person, collection_id, "Put back", len(put_back))
    return len(put_back)


def _note(session: Session, person: Person, collection_id: int, did: str, count: int) -> None:
    if count:
        collection = session.get_one(Collection, collection_id)
        what = f"{did} {count:,} image{'s' if count > 1 else ''} of “{collection.name}”"
        note(session, person, "delete", what, collection=collection)


def list_removed(session: Session, collection_id: int, *, page: int) -> RemovedPage:
    """One page of the removed images; a page past the end is the last one."""
    total = count_removed(session, collection_id)
    pages = max(1, ceil(total / IMAGES_PER_PAGE))
    page = min(max(1, page), pages)
    query = (
        select(Image)
        .where(Image.collection_id == collection_id, Image.removed_at.is_not(None), _SHOWS_NOBODY)
        .order_by(Image.removed_at.desc(), Image.path, Image.id)
        .limit(IMAGES_PER_PAGE)
        .offset((page - 1) * IMAGES_PER_PAGE)
    )
    return RemovedPage(list(session.scalars(query)), page, pages, total)


def count_removed(session: Session, collection_id: int) -> int:
    """How many images of the collection are removed."""
    query = select(func.count()).where(
        Image.collection_id == collection_id, Image.removed_at.is_not(None), _SHOWS_NOBODY
    )
    return session.scalar(query) or 0


def find_listed(session: Session, collection_id: int, names: Sequence[str]) -> list[int]:
    """The images of a list of paths, as the collection knows them.

    Raises BadInput, and names those that no image has: a list with a slip removes nothing.
    """
    paths = [name.strip() for name in names if name.strip()]
    if not paths:
        raise BadInput("The list names no image. Write one path a line, as the collection has it.")
    found = dict(
        session.execute(
            select(ImagePath.path, ImagePath.image_id).where(
                ImagePath.collection_id == collection_id, is_among(ImagePath.path, paths)
            )
        ).all()
    )
    unknown = [path for path in paths if path not in found]
    if unknown:
        more = f" and {len(unknown) - NAMED:,} more" if len(unknown) > NAMED else ""
        raise BadInput(
            f"The collection has no image {', '.join(unknown[:NAMED])}{more}. Nothing was changed. "
            "Mend the list and try again."
        )
    return sorted(set(found.values()))
