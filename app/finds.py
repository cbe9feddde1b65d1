"""What the searches of a collection have found together: one table, and who found an image as what.

Only searches that a person sees count. Nothing here changes anything.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, joinedload

from app.access import sees_search
from app.database import is_among
from app.events import find_grouping_id, read_events
from app.exports.rows import read_images, read_naming, write_csv
from app.metadata import list_columns
from app.sensitive import Sight
from app.tables import Action, Answer, Image, Person, Search

MOST_SHOWN = 60  # images of several targets on the page; the table has all
COLUMNS = [
    "target",
    "path",
    "sha256",
    "captured_at",
    "event_id",
    "latitude",
    "longitude",
    "coordinate_precision",
    "deployment",
    "camera",
    "search_id",
    "answered_by",
    "answered_at",
    "answered_with",
    "also_found_as",
]


@dataclass(frozen=True)
class Find:
    """An image that is a yes in one search."""

    image_id: int
    search: Search
    who: str
    at: datetime
    with_image_id: int | None  # the image of its event that was looked at instead


@dataclass(frozen=True)
class TargetFinds:
    """What one search found."""

    search: Search
    image_ids: list[int]  # ascending
    event_count: int | None  # None where each image stands by itself


@dataclass(frozen=True)
class SharedFind:
    """An image that was found as several targets."""

    image: Image
    finds: list[Find]  # one of each target


@dataclass(frozen=True)
class CollectionFinds:
    """All that the searches of a collection have found."""

    targets: list[TargetFinds]  # most found first
    image_count: int  # different ones
    shared: list[SharedFind]  # at most MOST_SHOWN of them
    shared_count: int


def describe_finds(session: Session, person: Person, collection_id: int) -> CollectionFinds:
    """What each search found, and the images that several targets were found in."""
    searches = list_finding(session, person, collection_id)
    found = read_finds(session, searches)
    events = read_events(session, find_grouping_id(session, collection_id))
    own: dict[int, list[int]] = {}
    for image_id, finds in sorted(found.items()):
        for find in finds:
            own.setdefault(find.search.id, []).append(image_id)
    targets = []
    for search in searches:
        if image_ids := own.get(search.id):
            event_count = None if events is None else len(set(events.numbers_of(image_ids)))
            targets.append(TargetFinds(search, image_ids, event_count))
    targets.sort(key=lambda one: -len(one.image_ids))
    several = {
        image_id: each for image_id, finds in found.items() if len(each := _one_each(finds)) > 1
    }
    some = sorted(several)[:MOST_SHOWN]
    images = session.scalars(select(Image).where(is_among(Image.id, some)).order_by(Image.id))
    shared = [SharedFind(image, several[image.id]) for image in images]
    return CollectionFinds(targets, len(found), shared, len(several))


def write_finds(
    session: Session, person: Person, collection_id: int, *, sight: Sight
) -> Iterator[str]:
    """Lines of CSV: one for each image and search that found it, in order of path."""
    searches = list_finding(session, person, collection_id)
    found = read_finds(session, searches)
    events = read_events(session, find_grouping_id(session, collection_id))
    naming = read_naming(session, collection_id)
    given = [column.name for column in list_columns(session, collection_id)]
    header = [name for name in COLUMNS if events is not None or name != "event_id"]
    beside = [one.with_image_id for finds in found.values() for one in finds if one.with_image_id]
    # Of one that was removed, or hidden as it shows a person, the path is told nowhere.
    asked = select(Image.id, Image.path).where(
        is_among(Image.id, beside), Image.removed_at.is_(None)
    )
    looked_at: dict[int, str] = {row.id: row.path for row in session.execute(asked)}

    def rows() -> Iterator[dict[str, object]]:
        for images in read_images(session, collection_id, among=found):
            numbers = None if events is None else events.numbers_of([one.id for one in images])
            for place, image in enumerate(images):
                latitude, longitude = sight.degrees_of(image)
                deployment = naming.deployment(image)
                said = sight.given(image.given)
                of_image: dict[str, object] = {
                    "path": naming.path(image.path),
                    "sha256": image.sha256,
                    "captured_at": image.captured_at and image.captured_at.isoformat(),
                    "latitude": latitude,
                    "longitude": longitude,
                    "coordinate_precision": None if latitude is None else sight.grid,
                    "deployment": deployment and deployment.name,
                    "camera": image.camera,
                    **{f"given.{name}": said.get(name) for name in given},
                }
                if numbers is not None:
                    of_image["event_id"] = int(numbers[place])
                finds = found[image.id]
                for find in finds:
                    others = [
                        one.search.target_name
                        for one in _one_each(finds)
                        if _key(one.search) != _key(find.search)
                    ]
                    path = looked_at.get(find.with_image_id or 0)
                    yield of_image | {
                        "target": find.search.target_name,
                        "search_id": find.search.id,
                        "answered_by": find.who,
                        "answered_at": find.at.isoformat(),
                        "answered_with": path and naming.path(path),
                        "also_found_as": "; ".join(others),
                    }

    return write_csv([*header, *(f"given.{name}" for name in given)], rows())


def list_found_as(session: Session, person: Person, image: Image) -> list[Search]:
    """The searches in which an image is a yes."""
    touching = select(Answer.search_id).where(Answer.image_id == image.id).distinct()
    query = _ask_searches(person, image.collection_id).where(Search.id.in_(touching))
    found = read_finds(session, list(session.scalars(query)), image_id=image.id)
    return [find.search for find in found.get(image.id, [])]


def list_finding(session: Session, person: Person, collection_id: int) -> list[Search]:
    """The searches of a collection that a person sees, oldest first."""
    return list(session.scalars(_ask_searches(person, collection_id)))


def read_finds(
    session: Session, searches: list[Search], *, image_id: int | None = None
) -> dict[int, list[Find]]:
    """The positives of some searches by image, removed ones left out; of one image, or of all."""
    newest = (
        select(
            Answer.search_id,
            Answer.image_id,
            Answer.value,
            Answer.with_image_id,
            Answer.action_id,
        )
        .where(is_among(Answer.search_id, [search.id for search in searches]))
        .order_by(Answer.search_id, Answer.image_id, Answer.id.desc())
        .ext(distinct_on(Answer.search_id, Answer.image_id))
    )
    if image_id is not None:
        newest = newest.where(Answer.image_id == image_id)
    answers = newest.subquery()
    query = (
        select(answers, Person.name, Action.at)
        .join(Image, Image.id == answers.c.image_id)
        .join(Action, Action.id == answers.c.action_id)
        .join(Person, Person.id == Action.person_id)
        .where(answers.c.value == "yes", Image.removed_at.is_(None))
        .order_by(answers.c.search_id, answers.c.image_id)
    )
    by_id = {search.id: search for search in searches}
    found: dict[int, list[Find]] = {}
    for row in session.execute(query):
        find = Find(row.image_id, by_id[row.search_id], row.name, row.at, row.with_image_id)
        found.setdefault(row.image_id, []).append(find)
    return found


def _ask_searches(person: Person, collection_id: int) -> Select[Search]:
    return (
        select(Search)
        .where(Search.collection_id == collection_id, sees_search(person))
        .options(joinedload(Search.owner))
        .order_by(Search.id)
    )


def _one_each(finds: list[Find]) -> list[Find]:
    """One find of each target: several searches may be for the same."""
    return list({_key(find.search): find for find in reversed(finds)}.values())[::-1]


def _key(search: Search) -> str:
    """What tells targets apart: their names, however they are written."""
    return " ".join(search.target_name.split()).casefold()
