"""What columns of brought tables are taken for: time, place, camera and deployment of images.

A column is taken for one of them by its name, in any case, and by what it holds: every cell of it
must be readable so. People may choose otherwise. What a table says goes before what the file or a
package says, which is kept beside it (`Image.own`): whatever changes an image's own values takes
the tables' off first and lays them on again, so that they come back when the table is removed.

Times are the camera's own and never converted. Days such as 03/04/2026 are read only where another
cell, or a person, says which comes first.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Double,
    String,
    bindparam,
    cast,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Session

from app.engine.numerals import plural
from app.errors import BadInput
from app.sources import clean_label, plain
from app.tables import Collection, Deployment, GivenColumn, Image

ROLES = {  # what a column may be taken for, in words
    "time": "time",
    "clock": "time of day",
    "latitude": "latitude",
    "longitude": "longitude",
    "camera": "camera",
    "deployment": "deployment",
}
# Names by which a column is found, in small letters and digits alone; the first that fits is taken.
NAMES = {
    "time": (
        *("datetimeoriginal", "capturedat", "datetime", "timestamp", "datetimetaken", "datetaken"),
        *("takenat", "taken", "capturetime", "capturedate", "timetaken", "date", "time"),
        *("aufnahmezeit", "zeitstempel", "datum", "fecha"),
    ),
    "clock": ("time", "timeofday", "timetaken", "capturetime", "clock", "uhrzeit", "heure", "hora"),
    "latitude": ("latitude", "decimallatitude", "lat", "gpslatitude", "breitengrad", "latitud"),
    "longitude": (
        *("longitude", "decimallongitude", "lon", "lng", "long", "gpslongitude"),
        *("langengrad", "laengengrad", "longitud"),
    ),
    "camera": ("camera", "cameramodel", "cameraname", "cameraid", "kamera", "camara"),
    "deployment": (
        *("deployment", "deploymentid", "deploymentname", "station", "stationid", "stationname"),
        *("site", "siteid", "sitename", "standort"),
    ),
}
NONE, FOUND = "none", "found"  # in place of a column
ORDERS = {"day-first": (0, 1), "month-first": (1, 0)}  # where day and month stand
CHUNK_IMAGES = 5_000
OWN = ("captured_at", "latitude", "longitude", "camera", "deployment_id")  # that tables may say
LONGEST_NAME = 100  # letters of a camera or deployment that is found by itself
FEW_NAMES = 20  # so many are names, however few images there are

YEAR_FIRST = re.compile(r"([0-9]{4})([-/:.])([0-9]{1,2})\2([0-9]{1,2})(?:(?:T| +|, *)(.+))?")
YEAR_LAST = re.compile(r"([0-9]{1,2})([-/.])([0-9]{1,2})\2([0-9]{4})(?:(?:T| +|, *)(.+))?")
CLOCK = re.compile(
    r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,6})[0-9]*)?)?"
    r"(?: *([AaPp])\.?[Mm]\.?)?(?: *(?:Z|[+-][0-9]{2}:?[0-9]{2}))?"  # a zone is left off
)

Cells = dict[str, dict[int, str]]  # what stands in each column, by image


@dataclass
class Taken:
    """Which column is taken for what, and what there is to say of it."""

    columns: dict[str, str] = field(default_factory=dict)  # by what they are taken for
    order: str | None = None  # of day and month, where that is not plain
    asks: str | None = None  # the column whose days can be read in two ways
    said: list[str] = field(default_factory=list)  # sentences for people

    def list_words(self) -> list[str]:
        """What images have from which column."""
        how = f" ({self.order.replace('-', ' ')})" if self.order else ""
        return [
            f"{ROLES[role]} from “{column}”{how if role == 'time' else ''}"
            for role, column in self.columns.items()
        ]


@dataclass(frozen=True)
class Choice:
    """What people chose and what is taken now, as a page or a command shows it."""

    chosen: dict[str, str | None]  # by what for: a column or none; what is missing is found
    order: str | None
    taken: Taken


def read_choice(collection: Collection) -> Choice:
    """What the columns of a collection are taken for."""
    kept = collection.taken_for or {}
    columns = kept.get("columns", {})
    return Choice(
        chosen=dict(kept.get("chosen", {})),
        order=kept.get("order"),
        taken=Taken(
            {role: columns[role] for role in ROLES if role in columns},
            kept.get("read_as"),
            kept.get("asks"),
            list(kept.get("said", ())),
        ),
    )


def is_told(collection: Collection) -> bool:
    """Whether tables say when, where or by what its images were taken."""
    return bool(read_choice(collection).taken.columns)


def read_takes(texts: Sequence[str], before: Mapping[str, str | None]) -> dict[str, str | None]:
    """What was chosen before, with what is written as ROLE=COLUMN, ROLE=none or ROLE=found."""
    chosen = dict(before)
    for text in texts:
        role, is_said, column = text.partition("=")
        role = role.strip().lower()
        if not is_said or role not in ROLES:
            raise BadInput(
                f"“{text}” says no column: write {', '.join(ROLES)}, then = and the column, none, "
                "or found to have it found by itself."
            )
        chosen.pop(role, None)
        if column != FOUND:
            chosen[role] = None if column == NONE else column
    return chosen


@contextmanager
def without_tables(session: Session, collection_id: int) -> Iterator[None]:
    """Have images say what they do without tables, for as long as that is changed."""
    collection = session.get_one(Collection, collection_id, with_for_update={"key_share": True})
    if not (collection.taken_for or {}).get("columns"):
        yield
        return
    _take_off(session, collection_id)
    yield
    _lay_on(session, collection, read_choice(collection).taken)


def take_anew(
    session: Session,
    collection: Collection,
    *,
    chosen: Mapping[str, str | None] | None = None,
    order: str | None = None,
) -> Taken:
    """Take what tables say for images' times, places, cameras and deployments, as they are now.

    `chosen` and `order` stand in place of what was chosen before, where they are given.
    """
    before = read_choice(collection)
    columns = list(
        session.scalars(
            select(GivenColumn.name)
            .filter_by(collection_id=collection.id)
            .order_by(GivenColumn.position, GivenColumn.name)
        )
    )
    wanted = dict(before.chosen if chosen is None else chosen)
    wanted = {role: one for role, one in wanted.items() if one is None or one in columns}
    order = before.order if chosen is None else order
    if not columns:
        wanted, order = {}, None
    cells = _read_cells(session, collection.id, columns, wanted)
    # What was found stays found, though a later table may bring cells that can't be read so.
    kept = {role: one for role, one in before.taken.columns.items() if role not in before.chosen}
    taken = _find(columns, cells, _Wishes(wanted, kept), order)
    _lay_on(session, collection, taken)
    _mark_places(session, collection, before.taken.columns, taken.columns)
    collection.taken_for = {
        "chosen": wanted,
        "order": order,
        "columns": taken.columns,
        "read_as": taken.order,
        "asks": taken.asks,
        "said": taken.said,
    }
    session.flush()
    return taken


def _mark_places(
    session: Session, collection: Collection, before: Mapping[str, str], now: Mapping[str, str]
) -> None:
    """Show columns that images have their places from now as places are, whatever their names."""
    for role in ("latitude", "longitude"):
        if role in now and now[role] != before.get(role):
            column = session.get_one(GivenColumn, (collection.id, now[role]))
            if not column.holds_place:
                column.holds_place = True
                collection.guarded_at = func.clock_timestamp()
    session.flush()


def check_choice(
    chosen: Mapping[str, str | None], order: str | None, columns: Sequence[str]
) -> None:
    """Refuse what names no column, or says of days what is no order."""
    for role, column in chosen.items():
        if role not in ROLES:
            raise BadInput(f"A column is taken for {', '.join(ROLES)}; there is no “{role}”.")
        if column is not None and column not in columns:
            there = ", ".join(f"“{one}”" for one in columns) or "none"
            raise BadInput(f"There is no column “{column}”. Those that there are: {there}.")
    if order is not None and order not in ORDERS:
        raise BadInput(f"Days are {' or '.join(ORDERS)}; there is no “{order}”.")


def check_taken(chosen: Mapping[str, str | None], taken: Taken) -> None:
    """Refuse a choice that no image gets anything by."""
    for role, column in chosen.items():
        if column is not None and taken.columns.get(role) != column:
            why = " ".join(taken.said) or "Nothing in it can be read so."
            raise BadInput(f"“{column}” can't be taken for {ROLES[role]}. {why}")


# --- Reading -------------------------------------------------------------------------------------


def read_day(text: str, order: str | None) -> tuple[date, str] | None:
    """The day that a cell begins with, and what follows it."""
    text = text.strip()
    try:
        if found := YEAR_FIRST.fullmatch(text):
            return date(int(found[1]), int(found[3]), int(found[4])), found[5] or ""
        if (found := YEAR_LAST.fullmatch(text)) and order is not None:
            both = (int(found[1]), int(found[3]))
            day, month = (both[place] for place in ORDERS[order])
            return date(int(found[4]), month, day), found[5] or ""
    except ValueError:
        pass
    return None


def read_clock(text: str) -> time | None:
    """A time of day; a zone behind it is left off, as times are the camera's own."""
    found = CLOCK.fullmatch(text.strip())
    if found is None:
        return None
    hour, half = int(found[1]), (found[5] or "").lower()
    if half and not 1 <= hour <= 12:
        return None
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    try:
        return time(hour, int(found[2]), int(found[3] or 0), int((found[4] or "0").ljust(6, "0")))
    except ValueError:
        return None


def read_moment(day: str, clock: str | None, order: str | None) -> datetime | None:
    """When an image was taken, by one cell or by one of the day and one of the time of day."""
    found = read_day(day, order)
    if found is None:
        return None
    at = read_clock(found[1] if clock is None else clock)
    return datetime.combine(found[0], at) if at is not None else None


def tell_order(cells: Sequence[str]) -> str | None:
    """Whether day or month comes first, if that is plain; an empty text if it can't be told."""
    both = [
        (int(found[1]), int(found[3]))
        for cell in cells
        if (found := YEAR_LAST.fullmatch(cell.strip()))
    ]
    if all(first == second for first, second in both):
        return "day-first" if both else None
    fitting = [
        order for order, (_, month) in ORDERS.items() if all(1 <= one[month] <= 12 for one in both)
    ]
    if len(fitting) == 1:
        return fitting[0]
    return "" if fitting else None


def _read_degrees(text: str, most: int) -> float | None:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return value if abs(value) <= most else None


# --- Finding -------------------------------------------------------------------------------------


def _read_cells(
    session: Session, collection_id: int, columns: list[str], wanted: Mapping[str, str | None]
) -> Cells:
    """What stands in each column that may be taken for something, by image."""
    known = {name for names in NAMES.values() for name in names}
    asked = [one for one in columns if plain(one) in known or one in wanted.values()]
    cells: Cells = {one: {} for one in asked}
    if not asked:
        return cells
    rows = session.execute(
        select(Image.id, *(Image.given.op("->>")(one) for one in asked))
        .where(
            Image.collection_id == collection_id,
            Image.given.has_any(cast(asked, ARRAY(String))),
        )
        .execution_options(yield_per=CHUNK_IMAGES)
    )
    for image_id, *said in rows:
        for one, cell in zip(asked, said, strict=True):
            if cell is not None:
                cells[one][image_id] = cell
    return cells


@dataclass(frozen=True)
class _Wishes:
    """Which column people chose for what, or None for none; and what was found before."""

    chosen: Mapping[str, str | None]
    kept: Mapping[str, str]

    def settles(self, role: str, column: str) -> bool:
        """Whether a column is taken for it though not all of it can be read so."""
        return role in self.chosen or self.kept.get(role) == column

    def order(self, role: str, named: list[str]) -> list[str]:
        """The columns to look at for a role: the chosen one, or those of a fitting name."""
        if role in self.chosen:
            chosen = self.chosen[role]
            return [] if chosen is None else [chosen]
        free = [one for one in named if one not in self.chosen.values()]
        return sorted(free, key=lambda one: self.kept.get(role) != one)


def _find(columns: list[str], cells: Cells, wishes: _Wishes, order: str | None) -> Taken:
    taken = Taken()
    offered = {
        role: wishes.order(
            role,
            sorted(
                (one for one in columns if plain(one) in names),
                key=lambda one, names=names: names.index(plain(one)),  # type: ignore[misc]
            ),
        )
        for role, names in NAMES.items()
    }
    _find_time(taken, offered, cells, wishes, order)
    _find_place(taken, offered, cells, wishes)
    for role in ("camera", "deployment"):
        for one in offered[role]:
            here = list(cells[one].values())
            if here and (wishes.settles(role, one) or _are_names(here)):
                taken.columns[role] = one
                break
    return taken


def _find_time(
    taken: Taken,
    offered: Mapping[str, list[str]],
    cells: Cells,
    wishes: _Wishes,
    order: str | None,
) -> None:
    days: list[tuple[str, str | None]] = []  # columns that say the day alone, and how it is read
    unread: list[str] = []
    for one in offered["time"]:
        here = list(cells[one].values())
        told = tell_order(here)
        read_as = told or (order if told is not None else None)
        is_settled = wishes.settles("time", one)
        if told == "" and order is None:
            if is_settled or all(read_day(cell, "day-first") is not None for cell in here):
                taken.asks = taken.asks or one
            if "time" in wishes.chosen or not is_settled:
                continue
        good = sum(read_moment(cell, None, read_as) is not None for cell in here)
        if good and (good == len(here) or is_settled) and not wishes.chosen.get("clock"):
            taken.columns["time"], taken.order = one, read_as
            taken.asks = one if told == "" and read_as is None else None
            _say_asks(taken, cells)
            _say_unread(taken, one, len(here) - good, here, read_as)
            _say_others(taken, one, offered["time"], cells)
            return
        good = sum(read_day(cell, read_as) is not None for cell in here)
        if good and (good == len(here) or is_settled):
            days.append((one, read_as))
        elif any(read_clock(cell) is None for cell in here):
            unread.append(one)
    for one, read_as in days:
        for clock in offered["clock"]:
            at = cells[clock]
            good = sum(read_clock(cell) is not None for cell in at.values())
            if clock != one and good and (good == len(at) or wishes.settles("clock", clock)):
                taken.columns |= {"time": one, "clock": clock}
                taken.order, taken.asks = read_as, None
                _say_half(taken, one, clock, cells)
                return
    _say_asks(taken, cells)
    taken.said += [
        f"“{one}” says the day alone, so it is not taken for the time: that needs a column with "
        "the time of day too."
        for one, _ in days
    ]
    taken.said += [
        f"“{one}” is not taken for the time: not all of it can be read as one." for one in unread
    ]


def _say_asks(taken: Taken, cells: Cells) -> None:
    if taken.asks is not None:
        example = next(cell for cell in cells[taken.asks].values() if _is_open(cell))
        taken.said.append(
            f"“{taken.asks}” may begin with the day or with the month, such as {example}: say "
            "which, and it is taken for the time."
        )


def _is_open(cell: str) -> bool:
    found = YEAR_LAST.fullmatch(cell.strip())
    return found is not None and found[1] != found[3]


def _say_unread(
    taken: Taken, column: str, count: int, cells: Sequence[str], order: str | None
) -> None:
    if count:
        bad = next(cell for cell in cells if read_moment(cell, None, order) is None)
        taken.said.append(
            f"{plural(count, 'cell')} of “{column}” can't be read as a time, such as “{bad[:40]}”: "
            "those images keep what they said before."
        )


def _say_others(taken: Taken, column: str, offered: list[str], cells: Cells) -> None:
    others = [
        one
        for one in offered
        if one != column
        and (held := cells[one].values())
        and all(read_moment(cell, None, "day-first") is not None for cell in held)
    ]
    if others:
        names = ", ".join(f"“{one}”" for one in others)
        taken.said.append(f"Times stand in {names} too; “{column}” is taken.")


def _say_half(taken: Taken, day: str, clock: str, cells: Cells) -> None:
    half = cells[day].keys() ^ cells[clock].keys()
    if half:
        taken.said.append(
            f"Of {plural(len(half), 'image')} only “{day}” or “{clock}” says something: they get "
            "no time by it."
        )


def _find_place(
    taken: Taken,
    offered: Mapping[str, list[str]],
    cells: Cells,
    wishes: _Wishes,
) -> None:
    found = {}
    for role, most in (("latitude", 90), ("longitude", 180)):
        for one in offered[role]:
            here = cells[one].values()
            good = sum(_read_degrees(cell, most) is not None for cell in here)
            if good and (good == len(here) or wishes.settles(role, one)):
                found[role] = one
                break
            taken.said.append(f"“{one}” is not taken for the {role}: not all of it is in degrees.")
    if len(found) == 2:
        taken.columns |= found
    elif found:
        ((role, one),) = found.items()
        other = "longitude" if role == "latitude" else "latitude"
        taken.said.append(f"“{one}” is not taken for the {role}: there is no {other} with it.")


def _are_names(cells: Sequence[str]) -> bool:
    """Whether cells name cameras or deployments: short, and several images of most."""
    if not cells or max(map(len, cells)) > LONGEST_NAME:
        return False
    if all(read_day(cell, "day-first") is not None for cell in cells):
        return False
    return len(set(cells)) <= max(FEW_NAMES, len(cells) // 2)


# --- Laying on and taking off --------------------------------------------------------------------


def _take_off(session: Session, collection_id: int) -> None:
    """Have images say again what they say without tables."""

    def own(name: str, kind: Any) -> Any:
        return cast(Image.own.op("->>")(name), kind)

    session.execute(
        update(Image)
        .where(Image.collection_id == collection_id, Image.own.is_not(None))
        .values(
            captured_at=own("captured_at", DateTime(timezone=False)),
            latitude=own("latitude", Double),
            longitude=own("longitude", Double),
            camera=own("camera", String),
            deployment_id=own("deployment_id", BigInteger),
            own=None,
        )
        .execution_options(synchronize_session=False)
    )
    session.expire_all()


def _lay_on(session: Session, collection: Collection, taken: Taken) -> None:
    """Have images say what tables say, and keep beside it what they say without.

    Only what is another one now is written.
    """
    columns = taken.columns
    deployments = _name_deployments(session, collection.id, columns.get("deployment"))
    by_id = {one.id: one for one in deployments.values()}
    last = 0
    while some := _read_images(session, collection.id, list(columns.values()), last):
        last = some[-1].id
        told = [(row, _tell(row, taken, deployments, by_id)) for row in some]
        _write(
            session,
            [
                now
                for row, now in told
                if any(getattr(row, name) != value for name, value in now.items())
            ],
        )
    kept_for = select(cast(Image.own.op("->>")("deployment_id"), BigInteger)).where(
        Image.collection_id == collection.id, Image.own.op("->>")("deployment_id").is_not(None)
    )
    session.execute(
        delete(Deployment)
        .where(
            Deployment.collection_id == collection.id,
            Deployment.is_told,
            Deployment.id.not_in(
                select(Image.deployment_id).where(
                    Image.collection_id == collection.id, Image.deployment_id.is_not(None)
                )
            ),
            Deployment.id.not_in(kept_for),
        )
        .execution_options(synchronize_session=False)
    )
    session.expire_all()


def _name_deployments(
    session: Session, collection_id: int, column: str | None
) -> dict[str, Deployment]:
    """The collection's deployments by name, with those that tables name."""
    of_collection = select(Deployment).filter_by(collection_id=collection_id)
    if column is not None:
        named = select(Image.given.op("->>")(column)).where(
            Image.collection_id == collection_id, Image.given.has_key(column)
        )
        names = {clean_label(one) for one in session.scalars(named.distinct())} - {""}
        known = {one.name for one in session.scalars(of_collection)}
        if new := sorted(names - known):
            session.execute(
                insert(Deployment),
                [{"collection_id": collection_id, "name": one, "is_told": True} for one in new],
            )
    return {one.name: one for one in session.scalars(of_collection)}


def _read_images(
    session: Session, collection_id: int, columns: list[str], after: int
) -> Sequence[Any]:
    return session.execute(
        select(Image.id, *(getattr(Image, name) for name in OWN), Image.own, Image.given)
        .where(
            Image.collection_id == collection_id,
            Image.id > after,
            Image.given.has_any(cast(columns, ARRAY(String))) | Image.own.is_not(None),
        )
        .order_by(Image.id)
        .limit(CHUNK_IMAGES)
    ).all()


def _tell(
    row: Any, taken: Taken, deployments: Mapping[str, Deployment], by_id: Mapping[int, Deployment]
) -> dict[str, Any]:
    """What an image says with its tables, and beside it what it says without."""
    own = {name: getattr(row, name) if row.own is None else row.own[name] for name in OWN}
    if isinstance(own["captured_at"], str):
        own["captured_at"] = datetime.fromisoformat(own["captured_at"])
    given = row.given or {}

    def cell(role: str) -> str:
        return str(given.get(taken.columns.get(role, ""), "")).strip()

    clock = cell("clock") if "clock" in taken.columns else None
    moment = read_moment(cell("time"), clock, taken.order)
    latitude, longitude = _read_degrees(cell("latitude"), 90), _read_degrees(cell("longitude"), 180)
    is_placed = latitude is not None and longitude is not None and (latitude, longitude) != (0, 0)
    camera = clean_label(cell("camera"))
    named = deployments.get(clean_label(cell("deployment")))
    if moment is None and not is_placed and not camera and named is None:
        return {"id": row.id, **own, "own": None}
    before = by_id.get(own["deployment_id"])
    now = named or before
    captured_at = own["captured_at"]
    if moment is not None:
        captured_at = moment + timedelta(seconds=now.clock_shift_s if now else 0)
    elif captured_at is not None and now is not before and now is not None:
        shift_s = now.clock_shift_s - (before.clock_shift_s if before else 0)
        captured_at += timedelta(seconds=shift_s)
    place = (latitude, longitude) if is_placed else (own["latitude"], own["longitude"])
    if not is_placed and now is not None and now.latitude is not None and now is not before:
        by_deployment = before is not None and place == (before.latitude, before.longitude)
        if by_deployment or place[0] is None:
            place = (now.latitude, now.longitude)
    at = own["captured_at"]
    return {
        "id": row.id,
        "captured_at": captured_at,
        "latitude": place[0],
        "longitude": place[1],
        "camera": camera or own["camera"],
        "deployment_id": now.id if now else None,
        "own": {**own, "captured_at": at.isoformat() if at else None},
    }


def _write(session: Session, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    columns = [Image.__table__.c[name] for name in rows[0]]
    arrays = [
        bindparam(
            column.name,
            [row[column.name] for row in rows],
            ARRAY(JSONB(none_as_null=True) if column.name == "own" else column.type),
        )
        for column in columns
    ]
    told = func.unnest(*arrays).table_valued(*rows[0]).render_derived("told")
    session.execute(
        update(Image)
        .where(Image.id == told.c.id)
        .values(
            {
                column.name: cast(told.c.own, JSONB)
                if column.name == "own"
                else told.c[column.name]
                for column in columns
                if column.name != "id"
            }
        )
        .execution_options(synchronize_session=False)
    )
