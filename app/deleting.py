"""Putting collections and searches away, deleting them, and getting them back within a month.

What is deleted lies in the bin: nobody sees it, nothing of it is gone. After `KEPT_FOR` it goes for
good, files included. Photos in a person's own folders are never touched.
"""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.orm import Session, aliased

from app.access import get_own_search, may_open
from app.audit import note
from app.collecting import describe_preparation
from app.database import Database
from app.errors import NotAllowed, NotFound, WorkGoesOn
from app.reading import THUMBNAIL_SIDES, thumbnail_path
from app.searchers import drop_vectors
from app.settings import Settings
from app.store import delete_files, delete_folders, list_stored
from app.tables import (
    Action,
    Answer,
    Collection,
    ExportFile,
    Image,
    ImageIndex,
    Import,
    Job,
    Person,
    Photo,
    Replay,
    Search,
    Upload,
)

KEPT_FOR = timedelta(days=30)
SAMPLED_IMAGES = 500  # whose thumbnails tell what all take: a million files are slow to look at
Other = aliased(Image)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CollectionContents:
    """What goes with a collection, and what its files in the data folder take."""

    image_count: int
    searches: list[Search]
    answer_count: int
    original_bytes: int  # unpacked or copied; a person's own folder is no part of it
    thumbnail_bytes: int  # told from a sample
    index_bytes: int
    replay_bytes: int
    upload_bytes: int  # sent from a browser, and not imported yet
    export_bytes: int  # made, and kept some days

    @property
    def total_bytes(self) -> int:
        """All that is free again once it is gone for good."""
        kept = self.original_bytes + self.thumbnail_bytes + self.index_bytes
        return kept + self.replay_bytes + self.upload_bytes + self.export_bytes


@dataclass(frozen=True)
class SearchContents:
    """What goes with a search; its files are none, its rows are small."""

    round_count: int
    answer_count: int
    people: list[str]


@dataclass(frozen=True)
class BinItem:
    """Something deleted that can still be put back."""

    kind: str  # collection, search
    id: int
    name: str
    where: str  # the collection of a search
    deleted_at: datetime
    deleted_by: str
    gone_at: datetime


@dataclass(frozen=True)
class Emptied:
    """What the bin held too long, and is gone."""

    collections: int
    searches: int
    size_bytes: int


def put_collection_away(
    session: Session, person: Person, collection: Collection, *, is_away: bool
) -> None:
    """Take a collection off the home page, or put it there again; it works as before."""
    _check_may_delete(person, collection)
    if is_away != (collection.archived_at is not None):
        collection.archived_at = func.now() if is_away else None
        what = "Put away" if is_away else "Took out again"
        note(session, person, "delete", f"{what} “{collection.name}”", collection=collection)


def put_search_away(session: Session, person: Person, search: Search, *, is_away: bool) -> None:
    """Take a search off the home pages of all in it, or put it there again."""
    search = get_own_search(session, person, search.id)
    if is_away != (search.archived_at is not None):
        search.archived_at = func.now() if is_away else None
        what = "Put away" if is_away else "Took out again"
        note(session, person, "delete", f"{what} the search “{search.target_name}”", search=search)


def describe_collection_contents(
    session: Session, collection: Collection, settings: Settings
) -> CollectionContents:
    """What would be deleted with a collection."""
    searches = session.scalars(
        select(Search)
        .filter_by(collection_id=collection.id, deleted_at=None)
        .order_by(Search.touched_at.desc())
    ).all()
    answers = select(func.count()).select_from(Answer)
    own = select(Search.id).filter_by(collection_id=collection.id).scalar_subquery()
    sizes = {
        kind: sum(_folder_bytes(folder, settings) for folder in folders)
        for kind, folders in _list_folders(session, collection, settings).items()
    }
    return CollectionContents(
        image_count=_count_images(session, collection),
        searches=list(searches),
        answer_count=session.scalar(answers.where(Answer.search_id.in_(own))) or 0,
        original_bytes=sizes["originals"],
        thumbnail_bytes=_guess_thumbnail_bytes(session, collection, settings),
        index_bytes=sizes["indexes"],
        replay_bytes=sizes["replays"],
        upload_bytes=sizes["uploads"],
        export_bytes=sizes["exports"],
    )


def describe_search_contents(session: Session, search: Search) -> SearchContents:
    """What would be deleted with a search."""
    of_search = Action.search_id == search.id
    submits = select(func.count()).where(of_search, Action.kind == "submit")
    answers = select(func.count(Answer.image_id.distinct())).where(Answer.search_id == search.id)
    people = select(Person.name).where(Person.id.in_(select(Action.person_id).where(of_search)))
    return SearchContents(
        round_count=session.scalar(submits) or 0,
        answer_count=session.scalar(answers) or 0,
        people=list(session.scalars(people.order_by(Person.name))),
    )


def delete_collection(
    session: Session, person: Person, collection: Collection, *, now: datetime
) -> None:
    """Move a collection to the bin with all its searches; refused while work goes on in it."""
    _check_may_delete(person, collection)
    session.refresh(collection, with_for_update=True)
    if collection.deleted_at is not None:
        return  # a double click
    _refuse_while_working(session, collection, now)
    collection.deleted_at, collection.deleted_by_id = now, person.id
    note(
        session,
        person,
        "delete",
        f"Deleted “{collection.name}” with {_count_images(session, collection):,} images",
        collection=collection,
    )


def delete_search(session: Session, person: Person, search: Search, *, now: datetime) -> None:
    """Move a search to the bin."""
    search = get_own_search(session, person, search.id)
    session.refresh(search, with_for_update={"of": Search})
    if search.deleted_at is None:
        search.deleted_at, search.deleted_by_id = now, person.id
        note(session, person, "delete", f"Deleted the search “{search.target_name}”", search=search)


def list_bin(session: Session, person: Person) -> list[BinItem]:
    """What a person deleted or, an admin, whatever collection was; the newest first."""
    who = select(Person.name)
    collections = select(
        Collection, who.where(Person.id == Collection.deleted_by_id).scalar_subquery()
    )
    collections = collections.where(Collection.deleted_at.is_not(None))
    if person.role != "admin":
        collections = collections.where(Collection.made_by_id == person.id)
    searches = (
        select(Search, who.where(Person.id == Search.deleted_by_id).scalar_subquery())
        .join(Collection, Collection.id == Search.collection_id)
        .where(
            Search.deleted_at.is_not(None),
            Search.owner_id == person.id,
            Collection.deleted_at.is_(None),  # else it comes back with its collection
        )
    )
    items = [
        BinItem("collection", one.id, one.name, "", at, by or "", at + KEPT_FOR)
        for one, by in session.execute(collections)
        if (at := one.deleted_at)
    ]
    items += [
        BinItem("search", one.id, one.target_name, one.collection.name, at, by or "", at + KEPT_FOR)
        for one, by in session.execute(searches)
        if (at := one.deleted_at)
    ]
    return sorted(items, key=lambda item: item.deleted_at, reverse=True)


def list_gone_with(session: Session, person: Person) -> list[tuple[Collection, list[str], str]]:
    """Collections that somebody else put into the bin, a person's own searches in them, and who."""
    rows = session.execute(
        select(Search.target_name, Collection, Person.name)
        .join(Collection, Collection.id == Search.collection_id)
        .join(Person, Person.id == Collection.deleted_by_id)
        .where(
            Search.owner_id == person.id,
            Search.deleted_at.is_(None),
            Collection.deleted_at.is_not(None),
            Collection.deleted_by_id != person.id,
        )
        .order_by(Collection.deleted_at.desc(), Search.id)
    )
    gone: dict[int, tuple[Collection, list[str], str]] = {}
    for name, collection, by in rows:
        gone.setdefault(collection.id, (collection, [], by))[1].append(name)
    return list(gone.values())


def restore(session: Session, person: Person, kind: str, thing_id: int, *, now: datetime) -> str:
    """Put something back from the bin; its name, which is another where the old one is taken."""
    known = {(item.kind, item.id): item for item in list_bin(session, person)}
    item = known.get((kind, thing_id))
    if item is None or item.gone_at <= now:
        raise NotFound("That is not in the bin any more.")
    if kind == "search":
        search = session.get_one(Search, thing_id, with_for_update={"of": Search})
        search.deleted_at = search.deleted_by_id = None
        note(
            session, person, "delete", f"Put back the search “{search.target_name}”", search=search
        )
        return search.target_name
    collection = session.get_one(Collection, thing_id, with_for_update=True)
    taken = set(session.scalars(select(Collection.name).filter_by(deleted_at=None)))
    names = (item.name if n == 1 else f"{item.name} ({n})" for n in range(1, len(taken) + 2))
    collection.name = next(name for name in names if name not in taken)
    collection.deleted_at = collection.deleted_by_id = None
    note(session, person, "delete", f"Put back “{collection.name}”", collection=collection)
    return collection.name


def list_due(session: Session, *, now: datetime) -> tuple[list[Collection], int]:
    """What has lain in the bin too long: collections, and how many searches of others."""
    due = now - KEPT_FOR
    old = select(Collection).where(Collection.deleted_at <= due).order_by(Collection.id)
    collections = list(session.scalars(old))
    searches = (
        select(func.count())
        .select_from(Search)
        .where(
            Search.deleted_at <= due, Search.collection_id.not_in([one.id for one in collections])
        )
    )
    return collections, session.scalar(searches) or 0


def empty_bin(database: Database, settings: Settings, *, now: datetime) -> Emptied:
    """Delete for good what was deleted more than a month ago, files first.

    Killed in between, it goes on at the next time. Two of them at once share the work.
    """
    due = now - KEPT_FOR
    with database.session() as session:
        old = select(Collection.id).where(Collection.deleted_at <= due)
        collection_ids = session.scalars(old.order_by(Collection.id)).all()
    size_bytes = collections = 0
    for collection_id in collection_ids:
        with database.session() as session:
            locked = (
                select(Collection).filter_by(id=collection_id).where(Collection.deleted_at <= due)
            )
            collection = session.scalar(locked.with_for_update(skip_locked=True))
            if collection is not None:
                size_bytes += _delete_for_good(session, collection, settings)
                collections += 1
    with database.session() as session:
        gone = session.scalars(
            delete(Search).where(Search.deleted_at <= due).returning(Search.target_name)
        ).all()
        for name in gone:
            note(session, None, "delete", f"Deleted the search “{name}” for good")
    return Emptied(collections, len(gone), size_bytes)


def _check_may_delete(person: Person, collection: Collection) -> None:
    if not may_open(person, collection):
        raise NotAllowed("Only an admin, or who added a collection, can put it away or delete it.")


def _refuse_while_working(session: Session, collection: Collection, now: datetime) -> None:
    """Refuse while something works on it; mark what a killed process left, or it would go on."""
    preparation = describe_preparation(session, collection, now=now)
    if preparation.is_running and not preparation.stalled:
        raise WorkGoesOn(
            f"“{collection.name}” is being prepared. Stop that on its page, or wait for its end, "
            "then delete it."
        )
    own = {"collection_id": collection.id}
    alive = now - timedelta(minutes=2)
    building = select(ImageIndex.id).filter_by(**own, state="building")
    if session.scalar(building.where(ImageIndex.updated_at > alive)) is not None:
        raise WorkGoesOn(
            f"“{collection.name}” is being prepared with another model. Wait for its end, or stop "
            "it, then delete it."
        )
    played = select(Replay.id).filter_by(**own).where(Replay.state.in_(("waiting", "running")))
    if session.scalar(played.limit(1)) is not None:
        raise WorkGoesOn(
            f"A replay is played on “{collection.name}”. Stop it on its page, then delete this."
        )
    asked = select(Job.id).filter_by(**own).where(Job.state.in_(("waiting", "running")))
    if session.scalar(asked.limit(1)) is not None:
        raise WorkGoesOn(
            f"Work on “{collection.name}” waits or runs. Stop it under “Work”, in the menu of "
            "your name, or wait for its end; then delete this."
        )
    stopped = "It was stopped when the collection was deleted."
    session.execute(
        update(Import)
        .filter_by(**own, state="running")
        .values(state="interrupted", problem=stopped)
    )
    session.execute(
        update(ImageIndex)
        .filter_by(**own, state="building")
        .values(state="failed", problem=stopped)
    )


def _delete_for_good(session: Session, collection: Collection, settings: Settings) -> int:
    image_count = _count_images(session, collection)
    drop_vectors(session, collection.id, settings)
    size_bytes = sum(_remove(path) for path in _list_thumbnails(session, collection, settings))
    delete_files(settings, _list_thumbnails(session, collection, settings))
    for folders in _list_folders(session, collection, settings).values():
        for folder in folders:
            size_bytes += _folder_bytes(folder, settings)
            folder.unlink() if folder.is_file() else shutil.rmtree(folder, ignore_errors=True)
        delete_folders(settings, folders)
    # Searches first: what they say of images would be looked for at each image else.
    session.execute(delete(Search).filter_by(collection_id=collection.id))
    session.execute(delete(Collection).filter_by(id=collection.id))
    name = collection.name
    note(session, None, "delete", f"Deleted “{name}” for good, with {image_count:,} images")
    return size_bytes


def _list_folders(
    session: Session, collection: Collection, settings: Settings
) -> dict[str, list[Path]]:
    """The folders, and files, in the data folder that are a collection's alone."""
    indexes = session.scalars(select(ImageIndex.id).filter_by(collection_id=collection.id))
    replays = session.scalars(select(Replay.id).filter_by(collection_id=collection.id))
    uploads = session.scalars(select(Upload.id).filter_by(collection_id=collection.id))
    exports = session.scalars(
        select(ExportFile.id)
        .join(Search, Search.id == ExportFile.search_id)
        .where(Search.collection_id == collection.id)
    )
    folders = settings.home / "indexes"
    ahead = folders.glob(f"ahead-{collection.id}-*")  # vectors that no index has taken over
    built = [folders / f"{one}{end}" for one in indexes for end in ("", ".building", ".parts")]
    return {
        "originals": [settings.home / "originals" / str(collection.id)],
        "indexes": [*built, *ahead],
        "replays": [settings.home / "replays" / str(one) for one in replays],
        "uploads": [settings.home / "uploads" / str(one) for one in uploads],
        "exports": [settings.home / "exports" / str(one) for one in exports],
    }


def _list_thumbnails(
    session: Session, collection: Collection, settings: Settings
) -> Iterator[Path]:
    """Its thumbnails that nothing else shows: they are kept by content."""
    of_others = exists().where(Other.sha256 == Image.sha256, Other.collection_id != collection.id)
    of_photos = exists().where(Photo.sha256 == Image.sha256)
    query = select(Image.sha256, Image.width, Image.height).filter_by(collection_id=collection.id)
    rows = session.execute(query.where(~of_others, ~of_photos).execution_options(yield_per=10_000))
    for sha256, width, height in rows:
        sides = {thumbnail_path(settings.home, sha256, width, height, s) for s in THUMBNAIL_SIDES}
        yield from sides


def _guess_thumbnail_bytes(session: Session, collection: Collection, settings: Settings) -> int:
    image_count = _count_images(session, collection)
    sample = session.execute(
        select(Image.sha256, Image.width, Image.height)
        .filter_by(collection_id=collection.id)
        .order_by(Image.sha256)  # in the order of chance
        .limit(SAMPLED_IMAGES)
    ).all()
    paths = {
        thumbnail_path(settings.home, row.sha256, row.width, row.height, side)
        for row in sample
        for side in THUMBNAIL_SIDES
    }
    sizes = [path.stat().st_size for path in paths if path.exists()]
    if not sizes:
        return 0
    # With a store, those that are here stand for all.
    share = 1.0 if settings.store is None else len(sizes) / len(paths)
    return round(sum(sizes) / share * image_count / len(sample))


def _count_images(session: Session, collection: Collection) -> int:
    query = select(func.count()).select_from(Image).filter_by(collection_id=collection.id)
    return session.scalar(query) or 0


def _folder_bytes(folder: Path, settings: Settings) -> int:
    """What a folder, or file, takes in the data folder or, with a store, there."""
    if settings.store is not None:
        stored = list_stored(settings, folder.relative_to(settings.home).as_posix())
        return sum(file.size_bytes for file in stored)
    files = (path for path in (folder, *folder.rglob("*")) if path.is_file())
    return sum(path.stat().st_size for path in files)


def _remove(path: Path) -> int:
    """Delete a file; what it took."""
    try:
        size_bytes = path.stat().st_size
        path.unlink()
    except FileNotFoundError:
        return 0
    return size_bytes
