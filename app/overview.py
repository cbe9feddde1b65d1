"""What an admin sees of the whole server: collections, searches, people, work, disk and speed."""

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, joinedload

from app.access import sees_search
from app.accounts import list_accounts
from app.tables import Action, Answer, Collection, Image, ImageIndex, Person, Round, Search

MOST_SEARCHES = 20
SPEED_DAYS = 7
MEASURED_FOR_S = 60  # folder sizes are as good as new for so long
LEAST_FREE_BYTES = 5_000_000_000
LEAST_FREE_SHARE = 0.1  # of what the data folder takes
# In the order of docs/operations.md, "What is where".
PARTS = {
    "postgres": "The database: every answer",
    "originals": "Originals uploaded, unpacked from zips or copied",
    "uploads": "Files that are being uploaded",
    "photos": "Example photos that people uploaded",
    "thumbnails": "Smaller renditions of the images",
    "indexes": "Indexes",
    "replays": "Replays started in the browser",
    "demo": "The demo's drawn images",
}


@dataclass(frozen=True)
class CollectionLine:
    """A collection, its images and its indexes."""

    collection: Collection
    image_count: int
    size_bytes: int  # of the originals, wherever they are
    indexes: list[ImageIndex]  # ready or being built
    search_count: int


@dataclass(frozen=True)
class SearchLine:
    """A search that was touched of late."""

    search: Search
    people: list[str]  # who answered
    answer_count: int
    yes_count: int


@dataclass(frozen=True)
class PersonLine:
    """A person, and when they last did anything here."""

    person: Person
    last_seen_at: datetime | None
    search_count: int


@dataclass(frozen=True)
class Speed:
    """How long submits took, and how many there were in each hour that had one."""

    since: datetime
    until: datetime
    measured_count: int
    median_ms: float | None
    slow_ms: float | None  # the 95th percentile
    hours: list[tuple[datetime, int]]

    @property
    def round_count(self) -> int:
        """Rounds submitted in all these days."""
        return sum(count for _, count in self.hours)


@dataclass(frozen=True)
class DiskUse:
    """What the data folder takes, by part, and what is free beside it."""

    home: Path
    parts: list[tuple[str, str, int]]  # folder, what it holds, bytes
    index_bytes: dict[int, int]  # by index id
    free_bytes: int
    whole_bytes: int
    unread_count: int  # folders that the server may not look into

    @property
    def used_bytes(self) -> int:
        """Everything in the data folder."""
        return sum(size for _, _, size in self.parts)

    @property
    def is_short(self) -> bool:
        """Whether space may run out soon."""
        return self.free_bytes < max(LEAST_FREE_BYTES, LEAST_FREE_SHARE * self.used_bytes)


@dataclass
class FolderSizes:
    """Measures the data folder, at most once a minute, one walk at a time."""

    home: Path
    clock: Callable[[], float] = time.monotonic
    _lock: Lock = field(default_factory=Lock)
    _measured: tuple[float, DiskUse] | None = None

    def get(self) -> DiskUse:
        """The sizes as they are, or were a moment ago."""
        with self._lock:
            if self._measured is None or self.clock() - self._measured[0] > MEASURED_FOR_S:
                self._measured = (self.clock(), measure_disk(self.home))
            return self._measured[1]


def list_collection_lines(session: Session) -> list[CollectionLine]:
    """Every collection but those in the bin, by name; removed images do not count."""
    images = {
        collection_id: (count, int(size))
        for collection_id, count, size in session.execute(
            select(Image.collection_id, func.count(), func.sum(Image.size_bytes))
            .where(Image.removed_at.is_(None))
            .group_by(Image.collection_id)
        )
    }
    searches = dict(
        session.execute(
            select(Search.collection_id, func.count())
            .where(Search.deleted_at.is_(None))
            .group_by(Search.collection_id)
        ).all()
    )
    indexes: dict[int, list[ImageIndex]] = defaultdict(list)
    standing = select(ImageIndex).where(ImageIndex.state != "failed").order_by(ImageIndex.id)
    for row in session.scalars(standing):
        indexes[row.collection_id].append(row)
    return [
        CollectionLine(one, *images.get(one.id, (0, 0)), indexes[one.id], searches.get(one.id, 0))
        for one in session.scalars(
            select(Collection).where(Collection.deleted_at.is_(None)).order_by(Collection.name)
        )
    ]


def list_recent_searches(session: Session, person: Person) -> list[SearchLine]:
    """The searches a person sees, touched last first, with who answered and how much."""
    recent = session.scalars(
        select(Search)
        .options(joinedload(Search.collection), joinedload(Search.owner))
        .where(sees_search(person))
        .order_by(Search.touched_at.desc(), Search.id.desc())
        .limit(MOST_SEARCHES)
    ).all()
    ids = [search.id for search in recent]
    newest = (
        select(Answer.search_id, Answer.value)
        .where(Answer.search_id.in_(ids))
        .order_by(Answer.search_id, Answer.image_id, Answer.id.desc())
        .ext(distinct_on(Answer.search_id, Answer.image_id))
        .subquery()
    )
    counts = {
        search_id: (answers, yes)
        for search_id, answers, yes in session.execute(
            select(
                newest.c.search_id,
                func.count().filter(newest.c.value != "cleared"),
                func.count().filter(newest.c.value == "yes"),
            ).group_by(newest.c.search_id)
        )
    }
    people: dict[int, list[str]] = defaultdict(list)
    acted = (
        select(Action.search_id, Person.name)
        .join(Person, Person.id == Action.person_id)
        .where(Action.search_id.in_(ids))
        .group_by(Action.search_id, Person.id)
        .order_by(func.max(Action.id).desc())
    )
    for search_id, name in session.execute(acted):
        people[search_id].append(name)
    return [SearchLine(one, people[one.id], *counts.get(one.id, (0, 0))) for one in recent]


def count_unseen_searches(session: Session, person: Person) -> int:
    """Searches of others that a person does not see; those in the bin do not count."""
    query = select(func.count()).select_from(Search).join(Search.collection)
    return session.scalars(
        query.where(
            Search.deleted_at.is_(None), Collection.deleted_at.is_(None), ~sees_search(person)
        )
    ).one()


def list_people(session: Session) -> list[PersonLine]:
    """Every person, who was here last first."""
    newest = select(Action.person_id, func.max(Action.at)).group_by(Action.person_id)
    acted = dict(session.execute(newest).all())
    counts = dict(
        session.execute(
            select(Search.owner_id, func.count())
            .join(Search.collection)
            .where(Search.deleted_at.is_(None), Collection.deleted_at.is_(None))
            .group_by(Search.owner_id)
        ).all()
    )
    lines = []
    for account in list_accounts(session):
        number = account.person.id
        seen = [at for at in (account.seen_at, acted.get(number)) if at is not None]
        lines.append(PersonLine(account.person, max(seen, default=None), counts.get(number, 0)))
    long_ago = datetime.min.replace(tzinfo=UTC)
    return sorted(lines, key=lambda line: line.last_seen_at or long_ago, reverse=True)


def measure_speed(session: Session, *, now: datetime) -> Speed:
    """Rounds of the last days: how many in each hour, and how long people waited for them."""
    since = (now - timedelta(days=SPEED_DAYS)).replace(minute=0, second=0, microsecond=0)
    took = Round.submitting_ms
    count, median, slow = session.execute(
        select(
            func.count(took),
            func.percentile_cont(0.5).within_group(took),
            func.percentile_cont(0.95).within_group(took),
        ).where(Round.proposed_at >= since)
    ).one()
    hour = func.date_trunc("hour", Action.at)
    hours = session.execute(
        select(hour, func.count())
        .where(Action.kind == "submit", Action.at >= since)
        .group_by(hour)
        .order_by(hour)
    )
    return Speed(since, now, count, median, slow, [(at, number) for at, number in hours])


def measure_disk(home: Path) -> DiskUse:
    """Walk through the data folder; symbolic links are not followed."""
    unread: list[OSError] = []
    sizes = {
        entry.name: _size_of(Path(entry.path), unread)
        for entry in sorted(os.scandir(home), key=lambda entry: entry.name)
    }
    indexes = home / "indexes"
    index_bytes = (
        {
            int(entry.name): _size_of(Path(entry.path), unread)
            for entry in os.scandir(indexes)
            if entry.name.isdecimal()
        }
        if indexes.is_dir()
        else {}
    )
    parts = [(name, what, sizes.pop(name)) for name, what in PARTS.items() if name in sizes]
    rest = sum(sizes.values())
    if rest:
        parts.append(("", "Everything else", rest))
    disk = shutil.disk_usage(home)
    return DiskUse(home, parts, index_bytes, disk.free, disk.total, len(unread))


def _size_of(path: Path, unread: list[OSError]) -> int:
    """Bytes of a file or of all files below a folder; what vanishes on the way counts nothing."""
    if not path.is_dir() or path.is_symlink():
        return _size_of_files(path.parent, [path.name])
    return sum(
        _size_of_files(Path(folder), files)
        for folder, _, files in os.walk(path, onerror=unread.append)
    )


def _size_of_files(folder: Path, names: Sequence[str]) -> int:
    total = 0
    for name in names:
        try:
            total += (folder / name).lstat().st_size
        except FileNotFoundError:
            continue
    return total
