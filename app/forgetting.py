"""Tables removed and columns taken away: what that will mean, and the doing.

A table that is removed leaves what there would be if it had never been brought. A column that is
taken away is taken from every table. Nothing of the past changes: rounds keep which images a filter
let through (`Pool`) and how they were grouped (`Grouping`), replays and exports are files.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.access import sees_search
from app.audit import note
from app.database import is_among
from app.detecting import COLUMN, forget_boxes
from app.engine.numerals import plural
from app.errors import WorkGoesOn
from app.metadata import (
    get_column,
    get_table,
    list_columns,
    list_newest,
    list_tables,
    read_anew,
)
from app.sensitive import may_hold_places
from app.tables import (
    Collection,
    GivenColumn,
    GivenRow,
    GivenTable,
    Grouping,
    Image,
    Person,
    Replay,
    Search,
)
from app.taking import ROLES, read_choice, take_anew

UNDER_WAY = ("waiting", "running")  # states of a replay
# Filters that look at a column by what it is taken for.
KEYS = {
    "time": ("from", "to", "hour_from", "hour_to", "month"),
    "clock": ("from", "to", "hour_from", "hour_to", "month"),
    "latitude": ("south", "west", "north", "east"),
    "longitude": ("south", "west", "north", "east"),
    "deployment": ("deployment",),
}


@dataclass(frozen=True)
class Removal:
    """What removing a table, or taking a column away, will mean."""

    gone: list[str]  # columns that nothing is left of
    staying: list[tuple[str, list[str]]]  # columns that other tables speak of too, and which
    image_count: int  # of which something is said there
    draws: bool  # boxes, as a detector's
    told: list[str]  # what columns there are taken for, in words
    searches: list[Search]  # whose filter looks at it; those the person sees
    others: list[str]  # who else has such searches
    grouped_by: str | None  # a column that goes, and that events were grouped by
    replays: list[Replay]  # that look at it and have not ended
    marked: list[str] = field(default_factory=list)  # that go, and hold places as somebody said
    unknown: list[str] = field(default_factory=list)  # tables whose cells count as this one's

    @property
    def played(self) -> Replay | None:
        """A replay under way, for whose sake nothing is removed now."""
        return next((one for one in self.replays if one.state in UNDER_WAY), None)

    def list_sentences(self) -> list[str]:
        """All that follows, for people to read before they agree."""
        said = []
        if self.gone:
            names = ", ".join(f"“{name}”" for name in self.gone)
            what = "The column goes" if len(self.gone) == 1 else "These columns go"
            said.append(f"{what} from pages, filters and exports: {names}.")
        said += [
            f"“{name}” stays, with what is said there by {', '.join(tables)}."
            for name, tables in self.staying
        ]
        if self.marked:
            names = ", ".join(f"“{name}”" for name in self.marked)
            said.append(
                f"Added again, mark {names} as a place again: that somebody marked it is "
                "forgotten, and everybody would see what it says."
                if len(self.marked) == 1
                else f"Added again, mark {names} as places again: that somebody marked them is "
                "forgotten, and everybody would see what they say."
            )
        if self.unknown:
            names = ", ".join(f"“{name}”" for name in self.unknown)
            said.append(
                "It was added when what each table says was not yet kept apart, and what others "
                f"said then counts as said here. It goes too: add {names} again afterwards, "
                "where it said something."
            )
        if self.told:
            said.append(
                f"Images have their {', '.join(self.told)} from there: where no other table "
                "says it, they go by what their files or their package say again, and events "
                "are grouped anew."
            )
        if self.draws:
            said.append(
                "The boxes go that were drawn by it, and what looks at boxes is prepared anew. "
                "Images hidden because it saw people there stay hidden."
            )
        named = [f"“{one.target_name}” ({one.owner.name})" for one in self.searches]
        if self.others:
            named.append(f"searches of {', '.join(self.others)} that you don't see")
        if named:
            said.append(
                f"Filters that look at it: {', '.join(named)}. From the next round on they keep "
                "what fits then, perhaps no image, until somebody changes them. Answers stay."
            )
        if self.grouped_by is not None:
            said.append(
                f"Events were grouped by “{self.grouped_by}”. They stay as they are; images added "
                "later stand by themselves until somebody groups all anew."
            )
        if self.replays and self.played is None:
            count = plural(len(self.replays), "replay")
            said.append(f"{count} that stopped before the end can't be gone on with.")
        return [*said, "Past rounds, replays that ended and exported files stay as they are."]


def describe_table_removal(
    session: Session, collection_id: int, table: GivenTable, *, person: Person
) -> Removal:
    """What it will mean to remove a table."""
    others = [one for one in list_tables(session, collection_id) if one.id != table.id]
    also_in = {name: [one.name for one in others if name in one.columns] for name in table.columns}
    count = select(func.count(GivenRow.image_id.distinct())).filter_by(table_id=table.id)
    removal = _describe(session, collection_id, also_in, session.scalar(count) or 0, person)
    # The first of them has all that those before migration 0046 said.
    if not table.columns or any(one.id < table.id for one in others):
        return removal
    kept = select(GivenRow.table_id).where(GivenRow.table_id.in_([one.id for one in others]))
    having = set(session.scalars(kept.distinct()))  # rows of their own, as all since then have
    unknown = [one.name for one in others if one.image_count and one.id not in having]
    return replace(removal, unknown=unknown)


def describe_column_removal(
    session: Session, collection_id: int, column: GivenColumn, *, person: Person
) -> Removal:
    """What it will mean to take a column away."""
    count = select(func.count()).where(
        Image.collection_id == collection_id, Image.given.has_key(column.name)
    )
    names = [column.name, *_list_more(session, collection_id, column.name)]
    return _describe(
        session, collection_id, {name: [] for name in names}, session.scalar(count) or 0, person
    )


def remove_table(session: Session, collection_id: int, table_id: int, *, person: Person) -> bool:
    """Have images say what they would without a table; whether boxes went with it."""
    collection = session.get_one(Collection, collection_id, with_for_update=True)
    table = get_table(session, collection_id, table_id)
    removal = describe_table_removal(session, collection_id, table, person=person)
    _refuse_while_played(removal)
    drawn = list_newest(session, table, COLUMN) if removal.draws else []
    columns, name = table.columns, table.name
    session.delete(table)  # and what it says
    session.flush()
    read_anew(session, collection_id, columns)
    take_anew(session, collection)
    forget_boxes(session, drawn)
    what = f"Removed the table {name} from “{collection.name}”"
    note(session, person, "delete", what, collection=collection)
    return removal.draws


def forget_column(session: Session, collection_id: int, name: str, *, person: Person) -> bool:
    """Take a column away from every image, whichever tables said it; whether boxes went with it.

    What a detector saw goes as a whole.
    """
    collection = session.get_one(Collection, collection_id, with_for_update=True)
    column = get_column(session, collection_id, name)
    removal = describe_column_removal(session, collection_id, column, person=person)
    _refuse_while_played(removal)
    tables = list_tables(session, collection_id)
    for gone in removal.gone:
        session.execute(
            update(GivenRow)
            .where(
                GivenRow.table_id.in_([table.id for table in tables]), GivenRow.said.has_key(gone)
            )
            .values(said=GivenRow.said.op("-")(gone))
            .execution_options(synchronize_session=False)
        )
        for table in tables:
            table.columns = [one for one in table.columns if one != gone]
        what = f"Took the column {gone} away from “{collection.name}”"
        note(session, person, "delete", what, collection=collection)
    read_anew(session, collection_id, removal.gone)
    take_anew(session, collection)
    if removal.draws:
        boxed = select(Image.id).where(
            Image.collection_id == collection_id, Image.boxed_at.is_not(None)
        )
        forget_boxes(session, session.scalars(boxed).all())
    return removal.draws


def _list_more(session: Session, collection_id: int, name: str) -> list[str]:
    """Columns that go with one: how certainly a detector saw each kind."""
    if name != COLUMN:
        return []
    names = [column.name for column in list_columns(session, collection_id)]
    return [one for one in names if one.startswith(f"{COLUMN} ")]


def _describe(
    session: Session,
    collection_id: int,
    also_in: dict[str, list[str]],
    image_count: int,
    person: Person,
) -> Removal:
    gone = [name for name, tables in also_in.items() if not tables]
    taken = read_choice(session.get_one(Collection, collection_id)).taken.columns
    told = [role for role, column in taken.items() if column in also_in]
    by_role = {"given", *(key for role in told for key in KEYS.get(role, ()))}

    def looks_at_it(keys: Iterable[str]) -> bool:
        """At one of the columns, at what it is taken for, or at whether any table says anything."""
        return any(key in by_role or key.partition(".")[2] in also_in for key in keys)

    searches = session.scalars(
        select(Search)
        .filter_by(collection_id=collection_id, deleted_at=None)
        .where(Search.filter.is_not(None))
        .order_by(Search.id)
    )
    looking = [one for one in searches if looks_at_it(key for key, _ in one.filter or [])]
    numbers = [one.id for one in looking]
    query = select(Search.id).where(sees_search(person), is_among(Search.id, numbers))
    seen = set(session.scalars(query))
    grouped_by = session.scalar(
        select(Grouping.column_name)
        .join(Collection, Collection.grouping_id == Grouping.id)
        .where(Collection.id == collection_id)
    )
    unfinished = select(Replay).filter_by(collection_id=collection_id).order_by(Replay.id)
    return Removal(
        gone=gone,
        staying=[(name, tables) for name, tables in also_in.items() if tables],
        image_count=image_count,
        draws=COLUMN in also_in,
        told=[ROLES[role] for role in told],
        searches=[one for one in looking if one.id in seen],
        others=sorted({one.owner.name for one in looking if one.id not in seen}),
        grouped_by=grouped_by if grouped_by in gone else None,
        marked=[
            column.name
            for column in list_columns(session, collection_id)
            if column.name in gone and column.holds_place and not may_hold_places(column.name)
        ],
        replays=[
            one
            for one in session.scalars(unfinished.where(Replay.state != "done"))
            if looks_at_it(part.partition("=")[0] for part in one.settings.get("where", ()))
        ],
    )


def _refuse_while_played(removal: Removal) -> None:
    if removal.played is not None:
        raise WorkGoesOn(
            "A replay that looks at images by it is under way. Wait for its end, or stop it; then "
            "try again. Nothing was changed."
        )
