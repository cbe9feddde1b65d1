"""Filters: the images of a collection that are looked at, by time, place, tag, table, answer.

A filter is a list of keys and values, the same ones in an address, a form, a stored search and on
the command line: `from=2026-05-01`, `hour_from=20`, `month=12-2`, `south=50.1`, `deployment=A3`,
`folder=site-3/may`, `tag=juvenile`, `tagged=none`, `note=bait`, `is.bait=none`,
`has.remark=otter`, `min.depth=3`, `given=none`, `answer=no:12`. All keys must hold; of one key
given twice either value does. It is one condition of SQL, however many images there are.

For people who are not shown exact places a box becomes one of whole cells of the grid, and what it
keeps follows from the cells alone: however boxes are drawn, nothing finer can be told from them.
The key `grid` says so; it is set here and never taken from outside.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from math import cos, radians
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    DateTime,
    Double,
    Select,
    String,
    and_,
    bindparam,
    cast,
    extract,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by, distinct_on
from sqlalchemy.orm import Session

from app.access import get_search, is_in_search
from app.deploying import (
    folder_of,
    is_called_like_folder,
    may_folders_be_labels,
    may_see_folders,
    place_of,
)
from app.errors import BadInput
from app.metadata import list_columns
from app.remarks import has_image_notes, list_image_tags, standing_notes, standing_tags
from app.sensitive import (
    Sight,
    find_cells,
    find_sides,
    number_cell,
    read_common_sight,
    read_sight,
)
from app.tables import TAKEN, Answer, Deployment, GivenColumn, Image, Person, Search

Pairs = tuple[tuple[str, str], ...]

ONCE = (
    *("from", "to", "hour_from", "hour_to", "south", "west", "north", "east"),
    *("tagged", "note", "given", "answer"),
)
MANY = ("month", "deployment", "folder", "tag")
GRID = "grid"  # beside a box: degrees of the cells that it is made of
OF_COLUMNS = ("is", "has", "min", "max")
SIDES = {"south": 90, "west": 180, "north": 90, "east": 180}
SEASONS = ("12-2", "3-5", "6-8", "9-11")
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
ANSWER_STATES = {"yes": "yes", "no": "no", "unsure": "unsure", "none": "not answered"}
MOST_PAIRS = 400
MOST_DEPLOYMENTS = 500  # offered as a list
MAP_CELLS = 160  # across a map: places nearer than that are one point
LEAST_SPAN = 0.01  # degrees of a map, about a kilometre
CELLS_AROUND = 4  # of a grid, that a map shows at least: no finer lines than places
WHEN_TAKEN: ColumnElement[datetime] = literal_column(TAKEN, DateTime)
NEVER = datetime(9999, 12, 31)  # what TAKEN makes of an image of which nobody knows when
LETTERS = literal_column('"C"', String)


@dataclass(frozen=True)
class Chip:
    """One part of a filter, as people read it, and the filter that is left without it."""

    words: str
    rest: Pairs


@dataclass(frozen=True)
class Filter:
    """Checked keys and values, in a fixed order; empty means every image."""

    pairs: Pairs = ()

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def first(self, key: str) -> str:
        """The value of a key, empty without one."""
        return next((value for name, value in self.pairs if name == key), "")

    def all(self, key: str) -> list[str]:
        """Every value of a key."""
        return [value for name, value in self.pairs if name == key]

    def without(self, *keys: str) -> Pairs:
        """What is left when these keys go."""
        return tuple(pair for pair in self.pairs if pair[0] not in keys)


@dataclass(frozen=True)
class Kept:
    """How many images a filter keeps, and what it leaves out for want of knowledge."""

    count: int
    total: int
    unknown: list[tuple[str, int]]  # "no date" and the images left out for it

    @property
    def left_out(self) -> int:
        """Images that the filter leaves out."""
        return self.total - self.count


@dataclass(frozen=True)
class Place:
    """One point of the map."""

    x: float  # 0..1 from west to east
    y: float  # 0..1 from north to south
    latitude: float
    longitude: float
    count: int


@dataclass(frozen=True)
class Map:
    """Where the images are, on plain latitudes and longitudes."""

    south: float
    west: float
    north: float
    east: float
    aspect: float  # width by height
    places: list[Place]
    parallels: list[tuple[float, float]]  # degrees, y
    meridians: list[tuple[float, float]]  # degrees, x


@dataclass(frozen=True)
class Offer:
    """What can be filtered by in a collection."""

    first_day: date | None
    last_day: date | None
    map: Map | None
    deployments: list[tuple[str, str, int]]  # name, place, images
    columns: list[GivenColumn]
    tags: list[tuple[str, int]]  # on how many images
    has_notes: bool
    searches: list[tuple[int, str]]


def pick_pairs(items: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of an address's or a form's fields that are a filter's, without the empty ones."""
    return [(key, value.strip()) for key, value in items if _is_key(key) and value.strip()]


def split_pairs(where: Iterable[str]) -> list[tuple[str, str]]:
    """Keys and values of a filter that is written as KEY=VALUE, or BadInput."""
    pairs = []
    for given in where:
        key, sign, value = given.partition("=")
        if not sign:
            raise BadInput(f"“{given}” is no filter. Write KEY=VALUE, such as month=12-2.")
        pairs.append((key.strip(), value.strip()))
    return pairs


def join_pairs(chosen: Filter) -> tuple[str, ...]:
    """A filter written as KEY=VALUE, as `take_filter` reads it again."""
    return tuple(f"{key}={value}" for key, value in chosen.pairs)


def take_filter(where: Iterable[str]) -> Filter:
    """A filter that was checked when it was written down."""
    return Filter(tuple(split_pairs(where)))


def read_filter(
    session: Session,
    collection_id: int,
    items: Iterable[tuple[str, str]],
    *,
    person: Person,
    is_common: bool = False,
) -> Filter:
    """The filter that keys and values say, or BadInput with what is wrong.

    One that `is_common` tells no more of places than everybody sees, whoever makes it.
    """
    given = list(dict.fromkeys(items))
    if len(given) > MOST_PAIRS or any("\0" in part for pair in given for part in pair):
        raise BadInput("This filter can't be read. Take parts of it away and try again.")
    known = {column.name: column for column in list_columns(session, collection_id)}
    sight = read_sight(session, person, collection_id)
    if is_common:
        sight = read_common_sight(session, collection_id)
    for key, value in given:
        _check(session, key, value, known, sight, collection_id, person)
    keys = [key for key, _ in given]
    if {"deployment", "folder"} & set(keys) and not may_see_folders(session, person, collection_id):
        if "folder" in keys:
            raise BadInput("Folders are not shown in this collection: they may tell the answer.")
        named = [value for key, value in given if key == "deployment"]
        _check_recorded(session, collection_id, named)
    for key in ONCE:
        if keys.count(key) > 1:
            raise BadInput(f"“{key}” stands twice in this filter. Give it once.")
    sides = [key for key in SIDES if key in keys]
    if sides and len(sides) < len(SIDES):
        raise BadInput("A box on the map needs all four sides: south, west, north and east.")
    order = {key: place for place, key in enumerate((*ONCE, *MANY))}
    pairs = sorted(given, key=lambda pair: (order.get(pair[0], len(order)), pair))
    made = Filter(tuple(pairs))
    if sides and float(made.first("south")) > float(made.first("north")):
        raise BadInput("The box's south lies north of its north. Exchange the two.")
    if made.first("from") and made.first("to") and made.first("from") > made.first("to"):
        raise BadInput(
            f"From, {made.first('from')}, is later than to, {made.first('to')}: no image was taken "
            "in between. Exchange the two."
        )
    for key, least in made.pairs:
        kind, _, column = key.partition(".")
        if kind == "min":
            _check_ends(column, known[column].kind, least, made.all(f"max.{column}"))
    return cover_filter(made, sight)


def check_for_search(session: Session, collection_id: int, chosen: Filter) -> None:
    """Refuse folders that may be labels, whoever sees them: its members see a search's filter."""
    if chosen.first("folder") and may_folders_be_labels(session, collection_id):
        raise BadInput(
            "A search can't be kept to folders here: they may be known labels, and tell the "
            "answer. Take the folder away from the filter."
        )


def cover_filter(chosen: Filter, sight: Sight) -> Filter:
    """A filter as somebody may see and use it: without sides finer than the grid they are shown.

    A filter that somebody else made may also look at columns that hold places; these parts go.
    """
    kept = [pair for pair in chosen.pairs if pair[0].partition(".")[2] not in sight.columns]
    if sight.grid is None or not chosen.first("south"):
        return Filter(tuple(kept))
    south, west, north, east = (float(chosen.first(side)) for side in SIDES)
    south, north = find_sides(south, north, sight.grid, 90)
    if west <= east:
        west, east = find_sides(west, east, sight.grid, 180)
    else:  # it lies across the date line: what it leaves out shrinks
        (west, _), (_, east) = (find_sides(side, side, sight.grid, 180) for side in (west, east))
        if west <= east:
            west, east = -180.0, 180.0
    sides = {"south": south, "west": west, "north": north, "east": east}
    pairs = [(key, _write(sides[key]) if key in sides else value) for key, value in kept]
    pairs = [pair for pair in pairs if pair[0] != GRID]
    return Filter((*pairs, (GRID, f"{sight.grid:g}")))


def list_chips(session: Session, chosen: Filter) -> list[Chip]:
    """The parts of a filter, each to be taken away by itself."""
    chips = []
    first, last = chosen.first("from"), chosen.first("to")
    if first or last:
        days = [_name_day(day) for day in (first, last) if day]
        words = " to ".join(days) if first and last else f"{'from' if first else 'until'} {days[0]}"
        chips.append(Chip(words[0].upper() + words[1:], chosen.without("from", "to")))
    if chosen.first("hour_from") or chosen.first("hour_to"):
        begin, end = _read_hours(chosen)
        words = f"{begin:02}:00 to {end:02}:59"
        chips.append(Chip(words, chosen.without("hour_from", "hour_to")))
    if chosen.first("south"):
        south, west, north, east = (float(chosen.first(side)) for side in SIDES)
        words = f"{_degrees(south, 'NS')}–{_degrees(north, 'NS')}, "
        words += f"{_degrees(west, 'EW')}–{_degrees(east, 'EW')}"
        chips.append(Chip(words, chosen.without(*SIDES, GRID)))
    for key, what in (("tagged", "a tag"), ("given", "a row in a table")):
        if chosen.first(key):
            sign = "With" if chosen.first(key) == "any" else "Without"
            chips.append(Chip(f"{sign} {what}", chosen.without(key)))
    if chosen.first("answer"):
        state, _, number = chosen.first("answer").partition(":")
        name = session.scalar(select(Search.target_name).filter_by(id=int(number)))
        words = f"{ANSWER_STATES[state].capitalize()} in “{name}”"
        chips.append(Chip(words, chosen.without("answer")))
    for pair in chosen.pairs:
        key, value = pair
        kind, _, column = key.partition(".")
        if kind == "month":
            words = _name_months(value)
        elif kind in ("deployment", "folder"):
            words = f"{kind.capitalize()} {value}"
        elif kind in ("tag", "note"):
            words = f"Tag {value}" if kind == "tag" else f"Note with {value}"
        elif column:
            sign = {"is": ":", "has": " with", "min": " from", "max": " to"}[kind]
            words = f"{column}{sign} {value}"
        else:
            continue
        chips.append(Chip(words, tuple(other for other in chosen.pairs if other != pair)))
    return chips


def list_image_ids(session: Session, collection_id: int, chosen: Filter) -> NDArray[np.int64]:
    """The images that a filter keeps, by number."""
    return read_image_ids(session, collection_id, Image.removed_at.is_(None), to_condition(chosen))


def read_image_ids(
    session: Session, collection_id: int, *conditions: ColumnElement[bool]
) -> NDArray[np.int64]:
    """Images of a collection, by number; one query and one value, however many they are."""
    query = _ask_together().where(*conditions)
    return to_image_ids(session.scalar(query, {"collection_id": collection_id}))


def read_removed_ids(session: Session, collection_id: int) -> NDArray[np.int64]:
    """The images that were removed from a collection, by number."""
    return to_image_ids(session.scalar(ask_removed(), {"collection_id": collection_id}))


def to_image_ids(together: bytes | None) -> NDArray[np.int64]:
    """Images as the database tells many at once."""
    return np.frombuffer(together or b"", dtype=">i8").astype(np.int64)


def _ask_together() -> Select[Any]:
    together = func.string_agg(
        func.int8send(Image.id), aggregate_order_by(literal_column("''::bytea"), Image.id)
    )
    return select(together).where(Image.collection_id == bindparam("collection_id"))


@cache
def ask_removed() -> Select[Any]:
    """Asked at each round, so written once: to write it anew takes longer than to ask."""
    return _ask_together().where(Image.removed_at.is_not(None))


def count_kept(session: Session, collection_id: int, chosen: Filter) -> Kept:
    """How many images a filter keeps and leaves out, and how many for want of a date or place."""
    wants: list[tuple[str, ColumnElement[bool]]] = []
    if any(chosen.first(key) for key in ("from", "to", "hour_from", "hour_to", "month")):
        wants.append(("no known time", Image.captured_at.is_(None)))
    if chosen.first("south"):
        wants.append(("no known place", Image.latitude.is_(None)))
    columns = dict.fromkeys(key.partition(".")[2] for key, _ in chosen.pairs if "." in key)
    wants += [(f"no {name}", _text_of(name).is_(None)) for name in columns]
    row = session.execute(
        select(
            func.count(),
            func.count().filter(to_condition(chosen)),
            *(func.count().filter(condition) for _, condition in wants),
        ).where(Image.collection_id == collection_id, Image.removed_at.is_(None))
    ).one()
    counts = zip((what for what, _ in wants), row[2:], strict=True)
    return Kept(row[1], row[0], [(what, count) for what, count in counts if count])


def describe_offer(session: Session, person: Person, collection_id: int) -> Offer:
    """What can be filtered by: for the form alone, since it looks at every image."""
    own = (Image.collection_id == collection_id) & Image.removed_at.is_(None)
    taken = select(Image.captured_at).where(own, WHEN_TAKEN < NEVER).limit(1)  # from an index
    first = session.scalar(taken.order_by(WHEN_TAKEN))
    last = session.scalar(taken.order_by(WHEN_TAKEN.desc()))
    sight = read_sight(session, person, collection_id)
    name = place_of(with_folders=not may_folders_be_labels(session, collection_id))
    deployments = session.execute(
        select(name, func.coalesce(func.max(Deployment.place), ""), func.count())
        .select_from(Image)
        .outerjoin(Deployment, Deployment.id == Image.deployment_id)
        .where(own, name.is_not(None))
        .group_by(name)
        .order_by(name)
        .limit(MOST_DEPLOYMENTS)
    )
    searches = session.execute(
        select(Search.id, Search.target_name)
        .where(
            Search.collection_id == collection_id, Search.deleted_at.is_(None), is_in_search(person)
        )
        .order_by(Search.touched_at.desc())
    )
    return Offer(
        first_day=first.date() if first else None,
        last_day=last.date() if last else None,
        map=_draw_map(session, own, sight),
        deployments=[(one, place, count) for one, place, count in deployments],
        columns=sight.list_shown(list_columns(session, collection_id)),
        tags=list_image_tags(session, collection_id),
        has_notes=has_image_notes(session, collection_id),
        searches=[(number, target) for number, target in searches],
    )


def to_condition(chosen: Filter) -> ColumnElement[bool]:
    """The condition that an image is kept by a checked filter."""
    parts: list[ColumnElement[bool]] = []
    if first := chosen.first("from"):
        parts.append(Image.captured_at >= date.fromisoformat(first))
    if last := chosen.first("to"):
        parts.append(Image.captured_at < date.fromisoformat(last) + timedelta(1))
    if chosen.first("hour_from") or chosen.first("hour_to"):
        begin, end = _read_hours(chosen)
        hour = extract("hour", Image.captured_at)
        parts.append(hour.between(begin, end) if begin <= end else or_(hour >= begin, hour <= end))
    if months := [month for value in chosen.all("month") for month in _read_months(value)]:
        parts.append(extract("month", Image.captured_at).in_(sorted(set(months))))
    if chosen.first("south"):
        parts.append(_is_in_box(chosen))
    if names := chosen.all("deployment"):
        parts.append(_is_of_deployment(names))
    if folders := chosen.all("folder"):
        parts.append(or_(*(Image.path.startswith(f"{one}/", autoescape=True) for one in folders)))
    if rows := chosen.first("given"):
        parts.append(Image.given.is_(None) if rows == "none" else Image.given.is_not(None))
    if answer := chosen.first("answer"):
        parts.append(_is_answered(answer))
    parts += _remark_conditions(chosen)
    parts += _column_conditions(chosen)
    return and_(*parts) if parts else literal_column("true")


def _is_in_box(chosen: Filter) -> ColumnElement[bool]:
    south, west, north, east = (float(chosen.first(side)) for side in SIDES)
    up: ColumnElement[Any] = Image.latitude.expression
    across: ColumnElement[Any] = Image.longitude.expression
    is_across_date_line = west > east
    if chosen.first(GRID):
        grid = float(chosen.first(GRID))
        up, across = number_cell(up, grid), number_cell(across, grid)
        south, north = find_cells(south, north, grid)
        west, east = find_cells(west, east, grid)
    return up.between(south, north) & (
        or_(across >= west, across <= east) if is_across_date_line else across.between(west, east)
    )


def _is_of_deployment(names: list[str]) -> ColumnElement[bool]:
    """By its own deployment, else by the first folder of its path.

    The deployments are looked up once, by name: each image's own would be a query a million times.
    """
    called = select(Deployment.id).where(Deployment.name.in_(names))
    return or_(
        Image.deployment_id.in_(called), Image.deployment_id.is_(None) & folder_of().in_(names)
    )


def deployment_of() -> ColumnElement[str]:
    """The deployment of an image: its own, else the first folder of its path, where it has one."""
    own = select(Deployment.name).where(Deployment.id == Image.deployment_id).scalar_subquery()
    return func.coalesce(own, folder_of())


def _is_key(key: str) -> bool:
    kind, _, column = key.partition(".")
    return key in ONCE or key in MANY or (kind in OF_COLUMNS and bool(column))


def _check(
    session: Session,
    key: str,
    value: str,
    known: dict[str, GivenColumn],
    sight: Sight,
    collection_id: int,
    person: Person,
) -> None:
    kind, _, column = key.partition(".")
    if not _is_key(key):
        raise BadInput(
            f"There is no filter “{key}”. Known are: {', '.join((*ONCE, *MANY))}, and for a column "
            f"of a table {', '.join(f'{one}.NAME' for one in OF_COLUMNS)}."
        )
    if column:
        _check_column(kind, column, value, known, sight)
    elif key in ("from", "to"):
        _read_day(value)
    elif key in ("hour_from", "hour_to"):
        if not re.fullmatch(r"[0-9]{1,2}", value) or int(value) > 23:
            raise BadInput(f"“{value}” is no hour: give one from 0 to 23.")
    elif key == "month":
        _read_months(value)
    elif key in SIDES:
        degrees = _read_number(value)
        if abs(degrees) > SIDES[key]:
            raise BadInput(f"{key.capitalize()} is in degrees, from -{SIDES[key]} to {SIDES[key]}.")
    elif key in ("tagged", "given") and value not in ("none", "any"):
        what = "a tag" if key == "tagged" else "a row in a table"
        raise BadInput(f"{key} is none (images without {what}) or any.")
    elif key == "answer":
        state, _, number = value.partition(":")
        if state not in ANSWER_STATES or not re.fullmatch(r"[0-9]{1,18}", number):
            raise BadInput("answer is yes, no, unsure or none, and a search: yes:12.")
        if get_search(session, person, int(number)).collection_id != collection_id:
            raise BadInput("That search is in another collection.")


def _check_recorded(session: Session, collection_id: int, names: list[str]) -> None:
    """Refuse folders that may be labels: whoever guessed one would be shown what is in it."""
    query = select(Deployment.name).filter_by(collection_id=collection_id)
    recorded = set(session.scalars(query.where(~is_called_like_folder())))
    for name in names:
        if name not in recorded:
            raise BadInput(f"No deployment “{name}” is recorded in this collection.")


def _check_column(
    kind: str, column: str, value: str, known: dict[str, GivenColumn], sight: Sight
) -> None:
    if column in sight.columns:
        raise BadInput(f"“{column}” holds places, which are rounded here: filter by the map.")
    if column not in known:
        names = ", ".join(known) or "none"
        raise BadInput(f"No table here has a column “{column}”. Its columns: {names}.")
    holds = known[column].kind
    if (holds == "text") != (kind in ("is", "has")):
        way = "is or has" if holds == "text" else "min or max"
        raise BadInput(f"“{column}” holds {holds}s: filter it by {way}.")
    if holds == "number":
        _read_number(value)
    elif holds == "date":
        _read_day(value)


def _check_ends(column: str, holds: str, least: str, most: list[str]) -> None:
    read = _read_day if holds == "date" else _read_number
    if any(read(least) > read(one) for one in most):  # type: ignore[operator]
        order = "later" if holds == "date" else "larger"
        raise BadInput(
            f"“{column}” begins at what is {order} than its end, {least} than {most[0]}: no image "
            "can be both. Exchange the two."
        )


def _read_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise BadInput(f"“{text}” is no number.") from error
    if not np.isfinite(number):
        raise BadInput(f"“{text}” is no number.")
    return number


def _read_day(text: str) -> date:
    try:
        return date.fromisoformat(text) if len(text) == 10 else date.max + timedelta(1)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"“{text}” is no date. Write it as 2026-05-31.") from error


def _read_hours(chosen: Filter) -> tuple[int, int]:
    """First and last hour, both included; 20 to 4 goes over midnight."""
    return int(chosen.first("hour_from") or 0), int(chosen.first("hour_to") or 23)


def _read_months(text: str) -> list[int]:
    """A month, or some that follow each other: 5, 12-2."""
    parts = text.split("-")
    if len(parts) > 2 or not all(re.fullmatch(r"[0-9]{1,2}", part) for part in parts):
        raise BadInput(f"“{text}” is no month: give 5, or 12-2 for December to February.")
    first, last = int(parts[0]), int(parts[-1])
    if not (1 <= first <= 12 and 1 <= last <= 12):
        raise BadInput(f"“{text}” is no month: they go from 1 to 12.")
    count = (last - first) % 12 + 1
    return [(first + step - 1) % 12 + 1 for step in range(count)]


def _name_months(text: str) -> str:
    months = _read_months(text)
    first, last = MONTHS[months[0] - 1], MONTHS[months[-1] - 1]
    return first if first == last else f"{first} to {last}"


def _name_day(text: str) -> str:
    day = date.fromisoformat(text)
    return f"{day.day} {day:%b} {day.year}"


def _write(degrees: float) -> str:
    return f"{degrees:.5f}".rstrip("0").rstrip(".")


def _degrees(value: float, signs: str) -> str:
    return f"{abs(value):.4g}° {signs[value < 0]}"


def _text_of(column: str) -> ColumnElement[str]:
    return Image.given.op("->>", return_type=String())(column)


def _column_conditions(chosen: Filter) -> list[ColumnElement[bool]]:
    parts: list[ColumnElement[bool]] = []
    for key in dict.fromkeys(key for key, _ in chosen.pairs):
        kind, _, column = key.partition(".")
        values = chosen.all(key)
        text = _text_of(column)
        if kind == "is":
            parts.append(text.in_(values))
        elif kind == "has":
            parts.append(or_(*(text.icontains(value, autoescape=True) for value in values)))
        elif kind in ("min", "max"):
            parts += [_is_beyond(kind, column, value) for value in values]
    return parts


def _is_beyond(kind: str, column: str, value: str) -> ColumnElement[bool]:
    """A number or a date of a table that is large or small enough; both ends belong to it."""
    try:
        number = func.to_jsonb(cast(float(value), Double))
    except ValueError:
        day = date.fromisoformat(value)
        text = _text_of(column).collate("C")
        if kind == "min":
            return text >= day.isoformat()
        return text < (day + timedelta(1)).isoformat()
    own = Image.given[column]
    return own >= number if kind == "min" else own <= number


def _remark_conditions(chosen: Filter) -> list[ColumnElement[bool]]:
    parts: list[ColumnElement[bool]] = []
    if tags := chosen.all("tag"):
        parts.append(_is_tagged([tag.lower() for tag in tags]))
    if tagged := chosen.first("tagged"):
        parts.append(_is_tagged() if tagged == "any" else ~_is_tagged())
    if note := chosen.first("note"):
        notes = standing_notes()
        noted = select(notes.c.image_id).where(notes.c.text.icontains(note, autoescape=True))
        parts.append(Image.id.in_(noted.where(notes.c.image_id.is_not(None))))
    return parts


def _is_tagged(among: list[str] | None = None) -> ColumnElement[bool]:
    """Whether an image has one of these tags, or any."""
    tags = standing_tags(among)
    return Image.id.in_(select(tags.c.image_id).where(tags.c.image_id.is_not(None)))


def _is_answered(answer: str) -> ColumnElement[bool]:
    state, _, number = answer.partition(":")
    newest = (
        select(Answer.image_id, Answer.value)
        .where(Answer.search_id == int(number))
        .order_by(Answer.image_id, Answer.id.desc())
        .ext(distinct_on(Answer.image_id))
        .subquery()
    )
    if state == "none":
        return Image.id.not_in(select(newest.c.image_id).where(newest.c.value != "cleared"))
    return Image.id.in_(select(newest.c.image_id).where(newest.c.value == state))


# --- The map ------------------------------------------------------------------------------------


def _draw_map(session: Session, own: ColumnElement[bool], sight: Sight) -> Map | None:
    placed = own & Image.latitude.is_not(None) & Image.longitude.is_not(None)
    up, across = (sight.in_sql(one.expression) for one in (Image.latitude, Image.longitude))
    ends = session.execute(
        select(func.min(up), func.min(across), func.max(up), func.max(across)).where(placed)
    ).one()
    if None in ends:
        return None
    south, west, north, east = (float(end or 0) for end in ends)
    least = max(LEAST_SPAN, CELLS_AROUND * (sight.grid or 0))
    step = max(north - south, east - west, least) / MAP_CELLS
    cell_y, cell_x = func.round(up / step), func.round(across / step)
    found = session.execute(
        select(func.avg(up), func.avg(across), func.count())
        .where(placed)
        .group_by(cell_y, cell_x)
        .order_by(func.count().desc(), cell_y, cell_x)
    ).all()
    shrink = max(0.2, cos(radians((south + north) / 2)))  # a degree east is shorter than one north
    tall = max(north - south, least) * 1.3
    wide = max(east - west, least / shrink) * 1.3
    tall = max(tall, wide * shrink / 2.4)  # no map is a thin strip
    wide = max(wide, tall * 1.2 / shrink)
    middle_y, middle_x = (south + north) / 2, (west + east) / 2
    south, north = max(-90.0, middle_y - tall / 2), min(90.0, middle_y + tall / 2)
    west, east = max(-180.0, middle_x - wide / 2), min(180.0, middle_x + wide / 2)

    def x_of(longitude: float) -> float:
        return (longitude - west) / (east - west)

    def y_of(latitude: float) -> float:
        return (north - latitude) / (north - south)

    return Map(
        south=south,
        west=west,
        north=north,
        east=east,
        aspect=(east - west) * shrink / (north - south),
        places=[
            Place(x_of(longitude), y_of(latitude), latitude, longitude, count)
            for latitude, longitude, count in found
        ],
        parallels=[(degrees, y_of(degrees)) for degrees in _list_lines(south, north)],
        meridians=[(degrees, x_of(degrees)) for degrees in _list_lines(west, east)],
    )


def _list_lines(low: float, high: float) -> list[float]:
    """Three to seven round degrees between two ends."""
    span = high - low
    size = 10.0 ** np.floor(np.log10(span / 3))
    step = next(size * times for times in (5, 2, 1) if span / (size * times) >= 2.5 or times == 1)
    first = int(np.ceil(low / step))
    return [round(number * step, 6) for number in range(first, int(np.floor(high / step)) + 1)]
