"""Events: which images of a collection are one burst, one track, or near-duplicates of each other.

Grouping is data: a `Grouping` says which images are together and by what rule, and never changes.
Grouping a collection anew makes another, and running searches go by it from their next round on,
while each round keeps the one it went by. An import groups by itself: by time where most images say
when they were taken, else files that follow one another and look nearly the same. What a person
chose stays the rule for later imports.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Collection as Several
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from math import inf
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    SQLColumnExpression,
    String,
    bindparam,
    case,
    cast,
    delete,
    exists,
    extract,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from app.audit import note
from app.database import Database, is_among
from app.deploying import folder_of, may_folders_be_labels
from app.engine.events import group_alike
from app.engine.index import VectorIndex
from app.errors import BadInput, IndexNotUsable, NoIndexYet
from app.filtering import read_removed_ids
from app.indexing import OpenIndexes, get_current_index
from app.metadata import list_columns
from app.settings import Settings
from app.tables import Collection, Detour, Grouping, Image, Person, Pool, Round, RoundImage

USUAL_GAP_S = 60
LONGEST_GAP_S = 86_400
USUAL_LIKENESS = 0.9
LEAST_LIKENESS = 0.5
MOST_IMAGES = 500  # of an event: one answer must not speak for a whole time-lapse
EXAMPLES, EXAMPLE_IMAGES = 6, 8  # events that the page shows, and images of each

MOST_OPEN = 8  # groupings and pools in memory

Integers = NDArray[np.int64]
Opened = TypeVar("Opened")
# Image id -> its answer (None: none) and the image it was given with, None for itself.
Given = dict[int, tuple[str | None, int | None]]


@dataclass(frozen=True)
class Rule:
    """How images are grouped: `bursts`, `column`, `near-duplicates` or `none`."""

    kind: str
    gap_s: int | None = None
    column: str | None = None
    likeness: float | None = None


@dataclass(frozen=True, eq=False)
class Events:
    """The images of a grouping that are not alone in their event.

    `image_ids` (m,) int64, ascending; `first_places` (m,) int32: the place in it of the first image
    of each one's event, whose id is the event's number.
    """

    image_ids: Integers
    first_places: NDArray[np.int32]

    def numbers_of(self, image_ids: Sequence[int] | Integers) -> Integers:
        """The number of each image's event: an image alone has its own id."""
        wanted = np.asarray(image_ids, np.int64)
        places, is_held = self._find(wanted)
        numbers = wanted.copy()
        numbers[is_held] = self.image_ids[self.first_places[places[is_held]]]
        return numbers

    def members_of(self, image_ids: Sequence[int] | Integers) -> dict[int, list[int]]:
        """All images of the events of these, by the event's number; images alone are left out."""
        places, is_held = self._find(np.asarray(image_ids, np.int64))
        own = np.unique(self.first_places[places[is_held]])
        members = np.flatnonzero(np.isin(self.first_places, own))
        found: dict[int, list[int]] = {}
        for number, image_id in zip(
            self.image_ids[self.first_places[members]].tolist(),
            self.image_ids[members].tolist(),
            strict=True,
        ):
            found.setdefault(number, []).append(image_id)
        return found

    def rows_in(self, index: VectorIndex) -> Integers:
        """The events of an index as app/engine/events.py takes them, (n,) int64."""
        places, is_held = self._find(index.image_ids)
        rows = np.flatnonzero(is_held)
        firsts = self.first_places[places[rows]]
        lowest = np.empty(len(self.image_ids), np.int64)
        lowest[firsts[::-1]] = rows[::-1]  # the last written stays: the lowest row
        events = np.arange(index.count)
        events[rows] = lowest[firsts]
        return events

    def _find(self, image_ids: Integers) -> tuple[Integers, NDArray[np.bool_]]:
        places = np.searchsorted(self.image_ids, image_ids)
        places = np.minimum(places, len(self.image_ids) - 1)
        return places, self.image_ids[places] == image_ids


@dataclass(frozen=True)
class ExampleEvent:
    """An event as the page shows it."""

    image_count: int
    images: list[Image]  # the first ones


@dataclass(frozen=True)
class GroupingView:
    """How a collection is grouped, for its page."""

    grouping: Grouping | None
    sentence: str
    # Removed images count nowhere: an event of which one image is left is none.
    event_count: int
    grouped_count: int  # images of these
    alone_count: int
    examples: list[ExampleEvent]
    columns: list[str]
    timed_count: int
    image_count: int
    may_compare: bool  # there are vectors to tell near-duplicates by

    @property
    def has_events(self) -> bool:
        """Whether any images belong together."""
        return self.event_count > 0


class OpenEvents:
    """The events, and the images of pools, that were read last.

    Neither ever changes, so each is read once for all requests: of a million images they take some
    ten megabytes, and every answer that is saved asks for them.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[str, int], Any] = OrderedDict()  # least recently used first
        self._lock = Lock()  # held for a moment only

    def get(self, kind: str, row_id: int, read: Callable[[], Opened]) -> Opened:
        """What `read` gives for a row of a kind, read if it is not open."""
        with self._lock:
            if (kind, row_id) in self._open:
                self._open.move_to_end((kind, row_id))
                opened: Opened = self._open[kind, row_id]
                return opened
        opened = read()
        with self._lock:
            self._open[kind, row_id] = opened
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        return opened


# --- Reading --------------------------------------------------------------------------------------


def read_events(session: Session, grouping_id: int | None) -> Events | None:
    """The events of a grouping; None where there are none."""
    if grouping_id is None:
        return None

    def read() -> Events | None:
        grouping = session.get_one(Grouping, grouping_id)
        if not grouping.event_count:
            return None
        return Events(
            np.frombuffer(grouping.image_ids, "<i8").astype(np.int64, copy=False),
            np.frombuffer(grouping.first_places, "<i4").astype(np.int32, copy=False),
        )

    return _get_open(session).get("grouping", grouping_id, read)


def read_pool(session: Session, made: Round | Detour) -> Integers | None:
    """The images that a round or a detour chose from; None where those were all."""
    pool_id = made.pool_id
    if pool_id is None:
        return None

    def read() -> Integers:
        stored = session.get_one(Pool, pool_id).image_ids
        return np.frombuffer(stored, "<i8").astype(np.int64, copy=False)

    return _get_open(session).get("pool", pool_id, read)


def _get_open(session: Session) -> OpenEvents:
    """What the database lends its sessions; else the session's own."""
    opened: OpenEvents = session.info.setdefault("open_events", OpenEvents())
    return opened


# Asked at each round, so written once: to write it anew takes longer than to ask.
ASK_GROUPING = (
    select(Grouping.id)
    .join(Collection, Collection.grouping_id == Grouping.id)
    .where(Collection.id == bindparam("collection_id"), Grouping.event_count > 0)
)
ASK_SHOWN = (
    select(RoundImage.image_id)
    .where(RoundImage.round_id == bindparam("round_id"))
    .order_by(RoundImage.position)
)


def find_grouping_id(session: Session, collection_id: int) -> int | None:
    """The grouping that a new round goes by; None where no images belong together."""
    return session.scalar(ASK_GROUPING, {"collection_id": collection_id})


def find_grouping(session: Session, collection_id: int) -> Grouping | None:
    """How a collection is grouped now; None where no images belong together."""
    grouping_id = find_grouping_id(session, collection_id)
    return None if grouping_id is None else session.get_one(Grouping, grouping_id)


def list_events_of(session: Session, made: Round, image_ids: Sequence[int]) -> dict[int, list[int]]:
    """For each image that has others in its event all of them, in order of time.

    By the grouping of a round; without images that were removed, or that its filter leaves out.
    """
    events = read_events(session, made.grouping_id)
    if events is None or not image_ids:
        return {}
    members = events.members_of(image_ids)
    known = [image_id for own in members.values() for image_id in own]
    pool = read_pool(session, made)
    if pool is not None:
        known = np.array(known, np.int64)[np.isin(known, pool)].tolist()
    ordered = session.scalars(
        select(Image.id)
        .where(is_among(Image.id, known), Image.removed_at.is_(None))
        .order_by(Image.captured_at, Image.path, Image.id)
    ).all()
    number_of = dict(zip(ordered, events.numbers_of(ordered).tolist(), strict=True))
    by_number: dict[int, list[int]] = {}
    for image_id in ordered:
        by_number.setdefault(number_of[image_id], []).append(image_id)
    found = {}
    for image_id in image_ids:
        own = by_number.get(number_of.get(image_id, -1), [])
        if len(own) > 1:
            found[image_id] = own
    return found


def list_asked(session: Session, round_id: int) -> list[int]:
    """The images that a round asks about: those it shows, and all others of their events."""
    shown = session.scalars(ASK_SHOWN, {"round_id": round_id}).all()
    events = list_events_of(session, session.get_one(Round, round_id), shown)
    return list(dict.fromkeys([*shown, *(one for own in events.values() for one in own)]))


def count_events(session: Session, made: Round, image_ids: Sequence[int]) -> int | None:
    """How many events these images are of, by the grouping of a round; None without one."""
    events = read_events(session, made.grouping_id)
    if events is None:
        return None
    return len(np.unique(events.numbers_of(image_ids)))


def spread(
    values: Mapping[int, str | None],
    alone: Several[int],
    events: Mapping[int, list[int]],
    standing: Given,
) -> Given:
    """Answers to images as answers to their events.

    An answer is for all images of the event that have none, and for those that got theirs along
    with the same image before: never for what was answered by itself, or along with another image.
    For an image that is in `alone` it is for that one only, and what others got along with it
    before is taken back. `events` as of `list_events_of`; `standing`: the answers of all of them.
    """
    given: Given = {image_id: (value, None) for image_id, value in values.items()}
    for image_id, value in values.items():
        for other in events.get(image_id, ()):
            answer, along = standing.get(other, (None, None))
            if other in values:
                continue
            if image_id in alone:
                if along == image_id:
                    given[other] = (None, image_id)
            elif answer is None or along == image_id:
                given[other] = (value, image_id)
    return given


# --- Grouping -------------------------------------------------------------------------------------


def make_rule(kind: str, *, gap_s: str = "", column: str = "", likeness: str = "") -> Rule:
    """A checked rule of what a form or a command says; empty parts take their usual value."""
    if kind == "bursts":
        return Rule(kind, gap_s=_read_gap(gap_s))
    if kind == "column":
        if not column:
            raise BadInput("Choose the column that says which images belong together.")
        return Rule(kind, column=column)
    if kind == "near-duplicates":
        return Rule(kind, gap_s=_read_gap(gap_s), likeness=_read_likeness(likeness))
    if kind == "none":
        return Rule(kind)
    raise BadInput("Choose how: by time, by a column, by likeness, or not at all.")


def group_images(
    session: Session,
    collection_id: int,
    rule: Rule,
    *,
    person: Person,
    indexes: OpenIndexes,
) -> Grouping:
    """Group a collection's images anew; its searches go by it from their next round on.

    What comes out as it is already stays.
    """
    collection = _lock(session, collection_id)
    made = _keep(session, collection, _group(session, collection_id, rule, indexes), rule, person)
    what = f"Grouped the images of “{collection.name}” into {made.event_count:,} events"
    note(session, person, "import", what, collection=collection)
    return made


def group_by_itself(database: Database, collection_id: int, *, settings: Settings) -> None:
    """Group what a collection holds now: by the rule that somebody chose, else by what fits it."""
    with database.session() as session:
        group_anew(session, collection_id, indexes=OpenIndexes(settings, patience_s=inf))


def group_anew(session: Session, collection_id: int, *, indexes: OpenIndexes) -> None:
    """Group images whose times, places or vectors are other ones now, as `group_by_itself` does."""
    collection = _lock(session, collection_id)
    chosen = None
    if collection.grouping_id is not None:
        chosen = session.get_one(Grouping, collection.grouping_id)
    # The column may have been taken away, or the vectors be away: what was grouped stays.
    with suppress(BadInput, NoIndexYet, IndexNotUsable):
        if chosen is not None and not chosen.is_automatic:
            rule = rule_of(chosen)
            grouped = _group(session, collection_id, rule, indexes)
        else:
            rule = _choose_rule(session, collection_id)
            grouped = _group(session, collection_id, rule, indexes)
            if 2 * grouped.long_count > len(grouped.image_ids):  # a time-lapse
                rule, grouped = Rule("none"), _Grouped()
        by = session.get(Person, chosen.made_by_id) if chosen and chosen.made_by_id else None
        is_automatic = chosen is None or chosen.is_automatic
        _keep(session, collection, grouped, rule, by, is_automatic=is_automatic)


def add_grouping(
    session: Session,
    collection: Collection,
    events: Sequence[Sequence[int]],
    rule: Rule,
    person: Person,
) -> Grouping:
    """A grouping that rounds brought from elsewhere went by; the collection keeps its own.

    Each event is its images, the first one first.
    """
    firsts = {image_id: event[0] for event in events for image_id in event}
    image_ids = sorted(firsts)
    grouped = _Grouped(
        np.array(image_ids, np.int64), np.array([firsts[one] for one in image_ids], np.int64)
    )
    return _add(session, collection, grouped, rule, person, is_automatic=False)


def rule_of(grouping: Grouping) -> Rule:
    """The rule that a grouping was made by."""
    return Rule(grouping.kind, grouping.gap_s, grouping.column_name, grouping.likeness)


def describe_rule(rule: Rule) -> str:
    """A rule as a sentence."""
    if rule.kind == "bursts":
        return (
            f"Images of one deployment, or else of one camera and folder, are one event as long as "
            f"no more than {rule.gap_s} s lie between one and the next."
        )
    if rule.kind == "column":
        return f"Images that have the same {rule.column} are one event."
    if rule.kind == "near-duplicates":
        return (
            "Files of one deployment, or else of one camera and folder, that follow one another "
            f"and look nearly the same (likeness {rule.likeness:g} and up) are one event, as long "
            f"as no more than {rule.gap_s or USUAL_GAP_S} s lie between one and the next where "
            "both have a time."
        )
    return "Each image stands by itself."


def describe_grouping(session: Session, collection_id: int) -> GroupingView:
    """How a collection is grouped, with its largest events to look at."""
    collection = session.get_one(Collection, collection_id)
    grouping = session.get(Grouping, collection.grouping_id) if collection.grouping_id else None
    own = (Image.collection_id == collection_id) & Image.removed_at.is_(None)
    image_count, timed_count = session.execute(
        select(func.count(), func.count(Image.captured_at)).where(own)
    ).one()
    may_compare = True
    try:
        get_current_index(session, collection_id)
    except NoIndexYet:
        may_compare = False
    events = read_events(session, grouping.id) if grouping else None
    sizes = _count_present(session, collection_id, events)
    grouped_count = int(sizes.sum())
    return GroupingView(
        grouping=grouping,
        sentence=describe_rule(rule_of(grouping) if grouping else Rule("none")),
        event_count=int(np.count_nonzero(sizes)),
        grouped_count=grouped_count,
        alone_count=image_count - grouped_count,
        examples=_list_examples(session, events, sizes),
        columns=[column.name for column in list_columns(session, collection_id)],
        timed_count=timed_count,
        image_count=image_count,
        may_compare=may_compare,
    )


def _lock(session: Session, collection_id: int) -> Collection:
    """Wait for whoever groups it now; what refers to the collection may be added meanwhile."""
    return session.get_one(Collection, collection_id, with_for_update={"key_share": True})


@dataclass(frozen=True, eq=False)
class _Grouped:
    """What a rule makes of a collection: images not alone, ascending, and the first of each."""

    image_ids: Integers = field(default_factory=lambda: np.empty(0, np.int64))
    first_ids: Integers = field(default_factory=lambda: np.empty(0, np.int64))
    cut_count: int = 0
    long_count: int = 0  # images of events that were cut

    @cached_property
    def first_places(self) -> NDArray[np.int32]:
        """As `Events` has them."""
        return np.searchsorted(self.image_ids, self.first_ids).astype(np.int32)


def _group(session: Session, collection_id: int, rule: Rule, indexes: OpenIndexes) -> _Grouped:
    if rule.kind == "bursts":
        return _group_bursts(session, collection_id, rule.gap_s or USUAL_GAP_S)
    if rule.kind == "column":
        return _group_by_column(session, collection_id, rule.column or "")
    if rule.kind == "near-duplicates":
        index = indexes.get(get_current_index(session, collection_id))
        return _group_near_duplicates(session, collection_id, rule, index)
    return _Grouped()


def _choose_rule(session: Session, collection_id: int) -> Rule:
    own = (Image.collection_id == collection_id) & Image.removed_at.is_(None)
    count, timed = session.execute(
        select(func.count(), func.count(Image.captured_at)).where(own)
    ).one()
    if 2 * timed >= count:
        return Rule("bursts", gap_s=USUAL_GAP_S)
    return Rule("near-duplicates", gap_s=USUAL_GAP_S, likeness=USUAL_LIKENESS)


def _group_bursts(session: Session, collection_id: int, gap_s: int) -> _Grouped:
    place = _place_of(session, collection_id)
    order = (Image.captured_at, Image.path, Image.id)
    before = func.lag(Image.captured_at).over(partition_by=place, order_by=order)
    images = (
        select(
            Image.id,
            Image.captured_at,
            Image.path,
            place.label("place"),
            case((Image.captured_at - before <= timedelta(seconds=gap_s), 0), else_=1).label(
                "starts"
            ),
        )
        .where(
            Image.collection_id == collection_id,
            Image.removed_at.is_(None),
            Image.captured_at.is_not(None),
        )
        .subquery()
    )
    order_again = (images.c.captured_at, images.c.path, images.c.id)
    runs = select(
        images,
        func.sum(images.c.starts)
        .over(partition_by=images.c.place, order_by=order_again)
        .label("run"),
    ).subquery()
    numbered = select(
        runs,
        func.row_number()
        .over(
            partition_by=(runs.c.place, runs.c.run),
            order_by=(runs.c.captured_at, runs.c.path, runs.c.id),
        )
        .label("at"),
        func.count().over(partition_by=(runs.c.place, runs.c.run)).label("length"),
    ).subquery()
    part = (numbered.c["at"] - 1) // MOST_IMAGES
    event = (numbered.c.place, numbered.c.run, part)
    firsts = select(
        numbered.c.id,
        numbered.c["at"],
        numbered.c.length,
        func.first_value(numbered.c.id)
        .over(partition_by=event, order_by=numbered.c["at"])
        .label("first_id"),
        func.count().over(partition_by=event).label("size"),
    ).subquery()
    row = session.execute(
        select(
            _together(firsts.c.id, firsts.c.id).filter(firsts.c.size > 1),
            _together(firsts.c.first_id, firsts.c.id).filter(firsts.c.size > 1),
            func.count().filter(firsts.c["at"] == MOST_IMAGES + 1),
            func.count().filter(firsts.c.length > MOST_IMAGES),
        )
    ).one()
    return _Grouped(_to_ids(row[0]), _to_ids(row[1]), row[2], row[3])


def _group_by_column(session: Session, collection_id: int, column: str) -> _Grouped:
    if column not in {one.name for one in list_columns(session, collection_id)}:
        known = ", ".join(one.name for one in list_columns(session, collection_id)) or "none"
        raise BadInput(f"No table here has a column “{column}”. Its columns: {known}.")
    value = Image.given.op("->>")(column)
    order = (Image.captured_at.nulls_last(), Image.path, Image.id)
    firsts = (
        select(
            Image.id,
            value.label("value"),
            func.first_value(Image.id).over(partition_by=value, order_by=order).label("first_id"),
            func.count().over(partition_by=value).label("size"),
        )
        .where(Image.collection_id == collection_id, Image.removed_at.is_(None), value.is_not(None))
        .subquery()
    )
    largest = session.execute(
        select(firsts.c.value, firsts.c.size).order_by(firsts.c.size.desc()).limit(1)
    ).first()
    if largest is not None and largest.size > MOST_IMAGES:
        raise BadInput(
            f"{largest.size:,} images have “{largest.value}” as their {column}: that is no event. "
            f"An event has at most {MOST_IMAGES} images, for one answer is for all of them. Choose "
            "a column that names a track, a burst or a visit."
        )
    row = session.execute(
        select(
            _together(firsts.c.id, firsts.c.id).filter(firsts.c.size > 1),
            _together(firsts.c.first_id, firsts.c.id).filter(firsts.c.size > 1),
        )
    ).one()
    return _Grouped(_to_ids(row[0]), _to_ids(row[1]))


def _group_near_duplicates(
    session: Session, collection_id: int, rule: Rule, index: VectorIndex
) -> _Grouped:
    place = _place_of(session, collection_id)
    order = (place, Image.path, Image.id)
    milliseconds = func.coalesce(cast(1_000 * extract("epoch", Image.captured_at), BigInteger), -1)
    images = (
        select(
            Image.id,
            func.dense_rank().over(order_by=place).label("place"),
            milliseconds.label("taken_ms"),
            func.row_number().over(order_by=order).label("at"),
        )
        .where(Image.collection_id == collection_id, Image.removed_at.is_(None))
        .subquery()
    )
    row = session.execute(
        select(
            _together(images.c.id, images.c["at"]),
            _together(images.c.place, images.c["at"]),
            _together(images.c.taken_ms, images.c["at"]),
        )
    ).one()
    image_ids, places, taken_ms = (_to_ids(part) for part in row)
    is_held = index.holds(image_ids)
    image_ids, places, taken_ms = image_ids[is_held], places[is_held], taken_ms[is_held]
    if not len(image_ids):
        return _Grouped()
    both_timed = (taken_ms[1:] >= 0) & (taken_ms[:-1] >= 0)
    is_far = np.abs(np.diff(taken_ms)) > 1_000 * (rule.gap_s or USUAL_GAP_S)
    is_apart = np.append(True, (np.diff(places) != 0) | (both_timed & is_far))
    runs = group_alike(
        index.vectors,
        index.rows_of(image_ids),
        is_apart,
        centre=index.mean,
        least=rule.likeness or USUAL_LIKENESS,
        most=MOST_IMAGES,
    )
    sizes = np.bincount(runs)
    firsts = image_ids[np.cumsum(sizes) - sizes][runs]
    is_many = sizes[runs] > 1
    order_of = np.argsort(image_ids[is_many])
    is_cut = sizes == MOST_IMAGES
    return _Grouped(
        image_ids[is_many][order_of],
        firsts[is_many][order_of],
        int(is_cut.sum()),
        int(sizes[is_cut].sum()),
    )


def _place_of(session: Session, collection_id: int) -> ColumnElement[str]:
    """Where an image was taken: its deployment, else its camera and first folder together.

    A camera's name alone is that of its make: two of a make take pictures at the same time. Folders
    that may be known labels say nothing here.
    """
    folder: ColumnElement[str] = func.coalesce(folder_of(), "")
    if may_folders_be_labels(session, collection_id):
        folder = literal_column("''", String)
    return case(
        (Image.deployment_id.is_not(None), func.concat("d", Image.deployment_id)),
        else_=func.concat("c", func.coalesce(Image.camera, ""), "/", folder),
    )


def _together(
    column: SQLColumnExpression[int], order: SQLColumnExpression[int]
) -> ColumnElement[bytes]:
    """A whole column as one value: quick however many images there are."""
    return func.string_agg(
        func.int8send(cast(column, BigInteger)),
        aggregate_order_by(literal_column("''::bytea"), order),
    )


def _to_ids(found: bytes | None) -> Integers:
    return np.frombuffer(found or b"", ">i8").astype(np.int64)


def _keep(
    session: Session,
    collection: Collection,
    grouped: _Grouped,
    rule: Rule,
    person: Person | None,
    *,
    is_automatic: bool = False,
) -> Grouping:
    """Make it the collection's grouping, if anything about it is new."""
    stored = (
        grouped.image_ids.astype("<i8").tobytes(),
        grouped.first_places.astype("<i4").tobytes(),
    )
    before = session.get(Grouping, collection.grouping_id) if collection.grouping_id else None
    is_known = (
        before is not None
        and rule_of(before) == rule
        and before.is_automatic == is_automatic
        and (before.image_ids, before.first_places) == stored
    )
    if before is not None and is_known:
        return before
    made = _add(session, collection, grouped, rule, person, is_automatic=is_automatic)
    collection.grouping_id = made.id
    # The one before may be under a round that is being made at this moment.
    last = before.id if before else 0
    session.execute(
        delete(Grouping).where(
            Grouping.collection_id == collection.id,
            Grouping.id < last,
            ~exists().where(Round.grouping_id == Grouping.id),
        )
    )
    session.flush()
    return made


def _add(
    session: Session,
    collection: Collection,
    grouped: _Grouped,
    rule: Rule,
    person: Person | None,
    *,
    is_automatic: bool,
) -> Grouping:
    made = Grouping(
        collection_id=collection.id,
        kind=rule.kind,
        gap_s=rule.gap_s,
        column_name=rule.column,
        likeness=rule.likeness,
        is_automatic=is_automatic,
        event_count=len(np.unique(grouped.first_ids)),
        image_count=len(grouped.image_ids),
        cut_count=grouped.cut_count,
        image_ids=grouped.image_ids.astype("<i8").tobytes(),
        first_places=grouped.first_places.astype("<i4").tobytes(),
        made_by_id=person.id if person else None,
    )
    session.add(made)
    session.flush()
    return made


def _count_present(session: Session, collection_id: int, events: Events | None) -> Integers:
    """How many images of each event are not removed, at the place of its first; 0 for one alone."""
    if events is None:
        return np.empty(0, np.int64)
    is_present = ~np.isin(events.image_ids, read_removed_ids(session, collection_id))
    sizes = np.bincount(events.first_places[is_present], minlength=len(events.image_ids))
    return np.where(sizes > 1, sizes, 0)


def _list_examples(session: Session, events: Events | None, sizes: Integers) -> list[ExampleEvent]:
    """The largest events, and the first images of each; `sizes` as `_count_present` has them."""
    if events is None:
        return []
    largest = np.argsort(-sizes, kind="stable")[:EXAMPLES]
    largest = largest[sizes[largest] > 1]
    size_of = dict(zip(events.image_ids[largest].tolist(), sizes[largest].tolist(), strict=True))
    examples = []
    for number, own in events.members_of(events.image_ids[largest]).items():
        images = session.scalars(
            select(Image)
            .where(is_among(Image.id, own), Image.removed_at.is_(None))
            .order_by(Image.captured_at, Image.path, Image.id)
            .limit(EXAMPLE_IMAGES)
        ).all()
        examples.append(ExampleEvent(size_of[number], list(images)))
    return sorted(examples, key=lambda one: -one.image_count)


def _read_gap(text: str) -> int:
    text = text.strip() or str(USUAL_GAP_S)
    if not text.isdecimal() or not 1 <= int(text[:9]) <= LONGEST_GAP_S:
        raise BadInput(
            f"The time between two images must be a whole number of seconds, from 1 to "
            f"{LONGEST_GAP_S:,}; not “{text}”."
        )
    return int(text)


def _read_likeness(text: str) -> float:
    text = text.strip() or str(USUAL_LIKENESS)
    try:
        likeness = float(text)
    except ValueError:
        likeness = 0.0
    if not LEAST_LIKENESS <= likeness <= 1:
        raise BadInput(f"The likeness must be a number from {LEAST_LIKENESS} to 1; not “{text}”.")
    return likeness
