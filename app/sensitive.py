"""What only trusted people see of a collection: exact places, and images that show people.

Places are rounded to a grid, never moved at random: whoever asks twice learns nothing more, and an
export can say how far off they are. A rounded place is the middle of its cell. Who is trusted says
`app/access.py`.

Source: A. D. Chapman, "Current Best Practices for Generalizing Sensitive Species Occurrence Data",
GBIF, 2020, doi 10.15468/doc-5jp4-5g10.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, cos, floor, hypot, log10, radians
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, select, true, update
from sqlalchemy import delete as sql_delete
from sqlalchemy.orm import Session

from app.access import is_trusted, may_open
from app.audit import note
from app.database import is_among
from app.engine.numerals import plural
from app.errors import BadInput, NotAllowed
from app.tables import Collection, GivenColumn, Image, Person, TrayItem, TrustedPerson

# Degrees, with what people call it; the ones that the source advises.
GRIDS = {0.001: "100 m", 0.01: "1 km", 0.1: "10 km", 1.0: "100 km"}
METRES_PER_DEGREE = 111_320  # of latitude, and of longitude at the equator: nowhere more
EDGE = 1e-9  # of a cell: a side on the edge of two belongs to the one inside
DEGREES = frozenset(
    ("lat", "lats", "latitude", "latitudes", "lon", "lons", "lng", "longitude", "longitudes")
) | {
    *("breitengrad", "laengengrad", "langengrad", "latitud", "longitud", "latitudine"),
    *("longitudine", "breedtegraad", "lengtegraad"),
}
PLACES = DEGREES | {
    *("coordinate", "coordinates", "coord", "coords", "easting", "eastings", "northing"),
    *("northings", "utm", "mgrs", "geohash", "wkt", "geometry", "geopoint", "gps"),
    *("koordinate", "koordinaten", "rechtswert", "hochwert", "ostwert", "nordwert"),
    *("coordonnee", "coordonnees", "coordenada", "coordenadas"),
}
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
WITHHELD = "withheld"
IMAGES_PER_PAGE = 60

Coordinates = tuple[float, float]


@dataclass(frozen=True)
class Sight:
    """What a person sees of the places of a collection."""

    grid: float | None = None  # degrees; None: places are exact
    columns: Mapping[str, bool] = field(default_factory=dict)  # that hold places; whether rounded
    trusted: bool = True  # may ask for images of people, too

    def place(self, latitude: float | None, longitude: float | None) -> Coordinates | None:
        """A place as it may be shown; None where none is known."""
        if latitude is None or longitude is None:
            return None
        return self._round(latitude), self._round(longitude)

    def degrees_of(self, thing: Any) -> tuple[float | None, float | None]:
        """Latitude and longitude of an image or a deployment, each as far as it is known."""
        both = (thing.latitude, thing.longitude)
        up, across = (None if one is None else self._round(one) for one in both)
        return up, across

    def place_of(self, thing: Any) -> Coordinates | None:
        """The place of an image or a deployment."""
        return self.place(thing.latitude, thing.longitude)

    def say_place(self, thing: Any) -> str:
        """The same as people read it; empty where none is known."""
        place = self.place_of(thing)
        if place is None:
            return ""
        return ", ".join(f"{degrees:.{self.decimals}f}" for degrees in place)

    @property
    def decimals(self) -> int:
        """Digits after the point that a place has."""
        return 5 if self.grid is None else max(0, -floor(log10(self.grid) + EDGE))

    @property
    def size(self) -> str:
        """How large a cell of the grid is, in words; empty where places are exact."""
        return "" if self.grid is None else f"{self.grid:g}° (about {GRIDS[self.grid]})"

    @property
    def generalization(self) -> str:
        """What an export says was done to its places; empty where they are exact."""
        if self.grid is None:
            return ""
        return (
            f"Coordinates rounded to a grid of {self.grid:g} degrees; each is the middle of its "
            "cell. The exact ones are kept by those who hold the collection."
        )

    def uncertainty_m(self, latitude: float) -> int | None:
        """Metres from a rounded place to the farthest corner of its cell; None for exact ones."""
        if self.grid is None:
            return None
        half = self.grid / 2
        nearest = max(0.0, abs(latitude) - half)  # the side nearest the equator is the longest
        return ceil(half * METRES_PER_DEGREE * hypot(1, cos(radians(nearest))))

    def given(self, said: Mapping[str, Any] | None) -> dict[str, Any]:
        """What brought tables say of an image, without exact places."""
        return {
            name: value if name not in self.columns else self._cover(name, value)
            for name, value in (said or {}).items()
        }

    def list_shown(self, columns: Sequence[GivenColumn]) -> list[GivenColumn]:
        """The columns that may be filtered by, and whose ends may be told."""
        return [column for column in columns if column.name not in self.columns]

    def in_sql(self, degrees: ColumnElement[Any]) -> ColumnElement[Any]:
        """Degrees of a column as they may be shown."""
        return degrees if self.grid is None else number_cell(degrees, self.grid) * self.grid

    def _round(self, degrees: float) -> float:
        if self.grid is None:
            return degrees
        return round(floor(degrees / self.grid + 0.5) * self.grid, self.decimals)

    def _cover(self, name: str, value: Any) -> Any:
        is_rounded = self.columns[name] and isinstance(value, int | float)
        return self._round(value) if is_rounded else WITHHELD


@dataclass(frozen=True)
class PeoplePage:
    """One page of the images that show people."""

    images: list[Image]
    page: int
    pages: int
    total: int


EXACT = Sight()
COARSEST = Sight(max(GRIDS), trusted=False)  # where nobody said who is looking


def number_cell(degrees: ColumnElement[Any], grid: float) -> ColumnElement[Any]:
    """The number of the cell that degrees lie in, as `Sight` rounds them."""
    return func.floor(degrees / grid + 0.5)


def find_cells(low: float, high: float, grid: float) -> tuple[int, int]:
    """The first and the last cell that an interval of degrees has a part of."""
    return floor(low / grid + 0.5 + EDGE), ceil(high / grid - 0.5 - EDGE)


def find_sides(low: float, high: float, grid: float, most: int) -> tuple[float, float]:
    """The outer sides of those cells, within what degrees there are."""
    first, last = find_cells(low, high, grid)
    decimals = EXACT.decimals
    return (
        round(max(-float(most), (first - 0.5) * grid), decimals),
        round(min(float(most), (last + 0.5) * grid), decimals),
    )


def read_sight(session: Session, person: Person, collection_id: int) -> Sight:
    """What a person sees of the places of a collection."""
    collection = session.get_one(Collection, collection_id)
    if is_trusted(session, person, collection):
        return EXACT
    return read_common_sight(session, collection_id)


def read_common_sight(session: Session, collection_id: int) -> Sight:
    """What everybody sees who sees the collection: for things that all of them share."""
    collection = session.get_one(Collection, collection_id)
    if collection.place_grid is None:
        return Sight(trusted=False)
    columns = session.scalars(
        select(GivenColumn).filter_by(collection_id=collection_id, holds_place=True)
    )
    rounded = {one.name: is_rounded(one) for one in columns}
    return Sight(collection.place_grid, rounded, trusted=False)


def is_rounded(column: GivenColumn) -> bool:
    """Whether a column that holds places is rounded as they are; others are withheld."""
    return column.kind == "number" and is_in_degrees(column.name)


def is_in_degrees(name: str) -> bool:
    """Whether a column of numbers holds latitudes or longitudes, by its name."""
    words = _list_words(name)
    return bool(words & DEGREES) or words == {"long"}


def may_hold_places(name: str) -> bool:
    """Whether a column seems to hold places, by its name; people can say otherwise."""
    words = _list_words(name)
    return bool(words & PLACES) or words == {"long"}


def _list_words(name: str) -> set[str]:
    letters = unicodedata.normalize("NFKD", name)
    without_accents = "".join(one for one in letters if not unicodedata.combining(one))
    return {word.lower() for word in WORD.findall(without_accents)}


def guard_places(
    session: Session, person: Person, collection: Collection, *, grid: str, people: Sequence[int]
) -> None:
    """Choose how places are rounded, and who sees the exact ones and the images of people."""
    if not may_open(person, collection):
        raise NotAllowed("Only an admin, or who added a collection, decides who sees its places.")
    known = {f"{size:g}": size for size in GRIDS}
    if grid and grid not in known:
        raise BadInput("Choose how far places are rounded.")
    size = known.get(grid)
    there = select(Person).where(Person.id.in_(people), Person.closed_at.is_(None))
    chosen = {one.id: one.name for one in session.scalars(there)}
    before = {one.id for one in list_trusted(session, collection)}
    if (size, set(chosen)) == (collection.place_grid, before):
        return
    collection.place_grid = size
    note_guarded(session, collection.id)
    session.execute(sql_delete(TrustedPerson).filter_by(collection_id=collection.id))
    session.add_all(TrustedPerson(collection_id=collection.id, person_id=one) for one in chosen)
    who = ", ".join(sorted(chosen.values())) or "admins alone"
    how = f"rounded to {Sight(size).size}" if size else "exact for everyone"
    what = f"Places of “{collection.name}” are {how}; trusted: {who}"
    note(session, person, "share", what, collection=collection)


def note_guarded(session: Session, collection_id: int) -> None:
    """Remember that what may be shown of a collection changes now.

    Exports that were made before are not given to who is not trusted.
    """
    session.execute(
        update(Collection)
        .where(Collection.id == collection_id)
        .values(guarded_at=func.clock_timestamp())
    )


def list_trusted(session: Session, collection: Collection) -> list[Person]:
    """The people who are named as trusted, by name."""
    query = select(Person).join(TrustedPerson, TrustedPerson.person_id == Person.id)
    return list(session.scalars(query.filter_by(collection_id=collection.id).order_by(Person.name)))


# --- Images of people -----------------------------------------------------------------------------


def hide_people(
    session: Session, collection_id: int, image_ids: Sequence[int], *, person: Person | None = None
) -> int:
    """Hide images that show people; how many were not hidden yet.

    Without a `person` a program says so: then images that somebody looked at stay as they were. A
    person sees no removed image, so they hide none.
    """
    # Before its images, as whoever brings a table has it: nobody waits for each other.
    session.get_one(Collection, collection_id, with_for_update={"key_share": True})
    own = (Image.collection_id == collection_id) & is_among(Image.id, list(image_ids))
    fresh = Image.shows_people.is_(None) if person is None else Image.removed_at.is_(None)
    hidden = session.scalars(
        update(Image)
        .where(own, fresh)
        .values(
            shows_people=True,
            was_removed=Image.removed_at.is_not(None),
            removed_at=func.coalesce(Image.removed_at, func.now()),
            removed_by_id=person.id if person else Image.removed_by_id,
        )
        .returning(Image.id)
        .execution_options(synchronize_session=False)
    ).all()
    gone: list[int | None] = [*hidden]
    session.execute(sql_delete(TrayItem).where(is_among(TrayItem.image_id, gone)))
    if hidden:
        note_guarded(session, collection_id)
    session.expire_all()
    if person is not None:
        _note(session, person, collection_id, "Hid", "as showing people", len(hidden))
    return len(hidden)


def show_people(
    session: Session, collection_id: int, image_ids: Sequence[int], *, person: Person
) -> int:
    """Take back that images show people, and put them back; how many showed them.

    Trusted people may, and who said it, for their own. What was removed before stays removed.
    """
    collection = session.get_one(Collection, collection_id)
    own = (Image.collection_id == collection_id) & is_among(Image.id, list(image_ids))
    shown = session.scalars(
        update(Image)
        .where(own, Image.shows_people.is_(True), sees_people(session, person, collection))
        .values(
            shows_people=False,
            was_removed=False,
            removed_at=case((Image.was_removed, Image.removed_at)),
            removed_by_id=case((Image.was_removed, Image.removed_by_id)),
        )
        .returning(Image.id)
        .execution_options(synchronize_session=False)
    ).all()
    session.expire_all()
    _note(session, person, collection_id, "Put back", "as showing nobody", len(shown))
    return len(shown)


def sees_people(session: Session, person: Person, collection: Collection) -> ColumnElement[bool]:
    """The condition that a person may see an image although it shows people."""
    if is_trusted(session, person, collection):
        return true()
    return _is_hidden_by(person)


def list_people_images(session: Session, collection_id: int, *, page: int) -> PeoplePage:
    """One page of the hidden images, the last hidden first; a page past the end is the last one."""
    total = count_people_images(session, collection_id)
    pages = max(1, ceil(total / IMAGES_PER_PAGE))
    page = min(max(1, page), pages)
    query = (
        select(Image)
        .where(_shows_people_in(collection_id))
        .order_by(Image.removed_at.desc(), Image.path, Image.id)
        .limit(IMAGES_PER_PAGE)
        .offset((page - 1) * IMAGES_PER_PAGE)
    )
    return PeoplePage(list(session.scalars(query)), page, pages, total)


def list_hidden_with(session: Session, person: Person, image_id: int) -> list[int]:
    """The images that a person hid at once with this one, as showing people; none if they did not.

    An event is hidden whole: all of its images have one time.
    """
    own = session.get(Image, image_id)
    if own is None:
        return []
    query = select(Image.id).where(
        _shows_people_in(own.collection_id),
        Image.removed_at == own.removed_at,
        _is_hidden_by(person),
    )
    together = list(session.scalars(query))
    return together if image_id in together else []


def find_people_images(session: Session, image_ids: Sequence[int]) -> set[int]:
    """Those of some images that are hidden because they show people."""
    query = select(Image.id).where(
        is_among(Image.id, list(image_ids)), Image.removed_at.is_not(None)
    )
    return set(session.scalars(query.where(Image.shows_people.is_(True))))


def count_people_images(session: Session, collection_id: int) -> int:
    """How many images are hidden because they show people."""
    return session.scalar(select(func.count()).where(_shows_people_in(collection_id))) or 0


def _shows_people_in(collection_id: int) -> ColumnElement[bool]:
    """Also that they are removed, which all of them are: there is an index of those."""
    return and_(
        Image.collection_id == collection_id,
        Image.removed_at.is_not(None),
        Image.shows_people.is_(True),
    )


def _is_hidden_by(person: Person) -> ColumnElement[bool]:
    """Of images of people; who only removed one before that was known did not hide it."""
    return (Image.removed_by_id == person.id) & ~Image.was_removed


def _note(
    session: Session, person: Person, collection_id: int, did: str, why: str, count: int
) -> None:
    if count:
        collection = session.get_one(Collection, collection_id)
        what = f"{did} {plural(count, 'image')} of “{collection.name}” {why}"
        note(session, person, "delete", what, collection=collection)
