"""Tables that people bring beside their images: CSV files with any columns.

A row is about the image it names, by path or the end of one, or by SHA-256. What it
says is kept with the image, typed by what stands in each column. A later table replaces what an
earlier one said in the same columns of the same images. Columns that look like known labels are
not kept: those belong to the oracle, and no search may show them. Columns that hold times, places,
cameras or deployments also say so of the images: `app/taking.py`.

What each table says is kept beside what all say together, so that one can be removed as if it had
never been brought. Rounds keep which images a filter let through (`Pool`) and how they were grouped
(`Grouping`), so that they repeat whatever is removed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from math import ceil, isfinite
from typing import Any

from sqlalchemy import String, bindparam, delete, func, insert, select, update
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, distinct_on
from sqlalchemy.orm import Session

from app.audit import note
from app.database import is_among
from app.errors import LabelsNotUsable, NotFound
from app.sensitive import is_in_degrees, may_hold_places, note_guarded
from app.sources import (
    FILE_COLUMNS,
    LABEL_COLUMNS,
    clean_text,
    find_column,
    match_files,
    name_columns,
    plain,
    read_table,
    say_unknown,
)
from app.tables import (
    Collection,
    GivenColumn,
    GivenRow,
    GivenTable,
    Image,
    ImagePath,
    Person,
    UnmatchedRow,
)
from app.taking import (
    Choice,
    Taken,
    check_choice,
    check_taken,
    read_choice,
    read_day,
    take_anew,
    tell_order,
)

NAME_COLUMNS = (*FILE_COLUMNS, "image")
FOLDER_COLUMNS = ("relativepath", "folder", "directory")  # beside a column of bare file names
HASH_COLUMNS = ("sha256", "hash", "checksum")
HIDDEN_COLUMNS = (
    *LABEL_COLUMNS,
    *("labels", "common", "commonname", "vernacularname", "taxon", "taxonname", "trivialname"),
    *("nomvernaculaire", "nomcommun", "nombrecomun"),
)
MOST_COLUMNS = 200
MOST_CHOICES = 40  # different texts of a column, up to which they are offered as a list
LONGEST_COLUMN = 200  # letters of a column's name
MOST_LETTERS = 2_000  # of one cell
CHUNK_IMAGES = 1_000
UNMATCHED_PER_PAGE = 100

# A number with a leading zero is a name, such as 007.
NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*)?(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?")
# 1,5 as much of Europe writes it. A column where all have three digits after it may mean thousands.
COMMA_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*),[0-9]+")
THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}.*)?")
SHA256 = re.compile(r"[0-9a-f]{64}")

Cell = float | int | str
Rows = list[tuple[int, list[str]]]  # line in the file, cells


@dataclass(frozen=True)
class TableSummary:
    """What came of a table that was brought."""

    name: str
    rows: int
    images: int  # that a row is about
    images_without: int  # of the collection's images
    columns: list[tuple[str, str]]  # name and kind
    unmatched: int
    unmatched_examples: list[str]
    notes: list[str]  # sentences people should see
    taken: Taken | None = None  # what columns are taken for; None where that was not looked at


@dataclass(frozen=True)
class MetadataPage:
    """The tables of a collection, their columns, and one page of the rows without an image."""

    tables: list[GivenTable]
    columns: list[GivenColumn]
    choice: Choice  # what the columns are taken for
    labels: list[str]  # columns that were kept before names like theirs were known for labels
    images_without: int  # images that no table says anything of
    unmatched: list[tuple[str, UnmatchedRow]]  # with the name of the table
    page: int
    pages: int
    total: int


def add_table(
    session: Session,
    collection_id: int,
    *,
    name: str,
    data: bytes,
    person: Person,
    chosen: Mapping[str, str | None] | None = None,
    order: str | None = None,
) -> TableSummary:
    """Keep what a CSV file says of the collection's images; raises LabelsNotUsable in a sentence.

    One of the same name adds to the one before; the list of unmatched rows is that of the newer.
    `chosen` and `order` are as for `choose_columns`; without them columns are found as before.
    """
    header, rows, notes, delimiter = read_table(data, name)
    header = [clean_text(column).strip() for column in header]
    _check_header(header, name)
    if delimiter != ",":  # else a cell with one is as soon a list, as of numbers of animals
        _read_commas(header, rows)
    summary, _ = add_rows(
        session, collection_id, name=name, header=header, rows=rows, person=person
    )
    if chosen is None:
        taken = take_anew(session, session.get_one(Collection, collection_id))
    else:
        taken = choose_columns(session, collection_id, chosen=chosen, order=order, person=person)
    return replace(summary, notes=[*notes, *summary.notes], taken=taken)


def add_rows(
    session: Session,
    collection_id: int,
    *,
    name: str,
    header: list[str],
    rows: Rows,
    person: Person,
) -> tuple[TableSummary, dict[int, int]]:
    """Keep rows with a checked header; what came of them, and the line about each image."""
    collection = session.get_one(Collection, collection_id, with_for_update=True)
    names = [plain(column) for column in header]
    keys = {*NAME_COLUMNS, *FOLDER_COLUMNS, *HASH_COLUMNS}
    hidden = [i for i, column in enumerate(names) if column in HIDDEN_COLUMNS]
    kept = [i for i, column in enumerate(names) if i not in hidden and column not in keys]
    rows_of, unmatched = _match(session, collection_id, header, rows, name)
    cells = [row for _, row in rows_of.values()]
    written = {header[i]: [row[i] for row in cells if i < len(row)] for i in kept}
    orders = _tell_orders(session, collection_id, written)
    told = {column: _tell_kind(here, orders.get(column)) for column, here in written.items()}
    saying = {column: kind for column, kind in told.items() if kind}  # empty ones say nothing
    kinds = _keep_columns(session, collection_id, saying)
    values = {
        image_id: {
            header[i]: _to_cell(row[i], kinds[header[i]], orders.get(header[i]))
            for i in kept
            if i < len(row) and header[i] in kinds and row[i].strip()
        }
        for image_id, (_, row) in rows_of.items()
    }
    _keep_values(session, [header[i] for i in kept], values)
    _describe_columns(session, collection_id, kinds, values)
    known = {column.name for column in list_columns(session, collection_id)}
    speaks_of = [i for i in kept if header[i] in known]
    table = _keep_table(session, collection_id, name, [header[i] for i in speaks_of])
    table.row_count, table.image_count, table.added_by_id = len(rows), len(values), person.id
    said_of = {
        image_id: {header[i]: _clean(row[i]) or None if i < len(row) else None for i in speaks_of}
        for image_id, (_, row) in rows_of.items()
    }
    _keep_rows(session, table, said_of)
    if unmatched:
        session.execute(
            insert(UnmatchedRow),
            [
                {"table_id": table.id, "line": line, "name": about, "reason": reason}
                for line, about, reason in unmatched
            ],
        )
    what = f"Added the table {name} to “{collection.name}”"
    note(session, person, "import", what, collection=collection)
    said = []
    if hidden:
        not_kept = ", ".join(header[i] for i in hidden)
        said.append(
            f"Not kept: {not_kept}. Known labels stay hidden in searches; give them on the "
            "collection's page “Known labels”."
        )
    summary = TableSummary(
        name=name,
        rows=len(rows),
        images=len(values),
        images_without=_count_without(session, collection_id),
        columns=list(kinds.items()),
        unmatched=len(unmatched),
        unmatched_examples=[f"line {line}, {about}: {why}" for line, about, why in unmatched[:3]],
        notes=said,
    )
    return summary, {image_id: line for image_id, (line, _) in rows_of.items()}


def list_columns(session: Session, collection_id: int) -> list[GivenColumn]:
    """The columns of a collection's tables, in the order they came."""
    query = select(GivenColumn).filter_by(collection_id=collection_id)
    return list(session.scalars(query.order_by(GivenColumn.position, GivenColumn.name)))


def list_tables(session: Session, collection_id: int) -> list[GivenTable]:
    """The tables brought to a collection, in the order they came."""
    query = select(GivenTable).filter_by(collection_id=collection_id)
    return list(session.scalars(query.order_by(GivenTable.added_at, GivenTable.id)))


def describe_metadata(session: Session, collection_id: int, *, page: int) -> MetadataPage:
    """The tables of a collection; a page past the end is the last one."""
    of_them = (
        select(GivenTable.name, UnmatchedRow)
        .join(UnmatchedRow, UnmatchedRow.table_id == GivenTable.id)
        .where(GivenTable.collection_id == collection_id)
    )
    total = session.scalar(select(func.count()).select_from(of_them.subquery())) or 0
    pages = max(1, ceil(total / UNMATCHED_PER_PAGE))
    page = min(max(1, page), pages)
    shown = of_them.order_by(GivenTable.id, UnmatchedRow.line).limit(UNMATCHED_PER_PAGE)
    rows = session.execute(shown.offset((page - 1) * UNMATCHED_PER_PAGE)).all()
    columns = list_columns(session, collection_id)
    return MetadataPage(
        tables=list_tables(session, collection_id),
        columns=columns,
        labels=[column.name for column in columns if plain(column.name) in HIDDEN_COLUMNS],
        choice=read_choice(session.get_one(Collection, collection_id)),
        images_without=_count_without(session, collection_id),
        unmatched=[(name, row) for name, row in rows],
        page=page,
        pages=pages,
        total=total,
    )


def find_name(session: Session, collection_id: int) -> str | None:
    """How an image of the collection is called, as an example."""
    paths = select(Image.path).filter_by(collection_id=collection_id, removed_at=None)
    return session.scalar(paths.order_by(Image.path).limit(1))


def get_table_called(session: Session, collection_id: int, name: str) -> GivenTable:
    """The table of that name, or a sentence that says which there are."""
    tables = list_tables(session, collection_id)
    found = next((table for table in tables if table.name == name), None)
    if found is None:
        names = ", ".join(f"“{table.name}”" for table in tables) or "none"
        raise NotFound(f"No table “{name}” was added here. Those that were: {names}.")
    return found


def get_table(session: Session, collection_id: int, table_id: int) -> GivenTable:
    """A table by its number."""
    table = session.get(GivenTable, table_id)
    if table is None or table.collection_id != collection_id:
        raise NotFound("There is no such table. Somebody may have removed it.")
    return table


def get_column(session: Session, collection_id: int, name: str) -> GivenColumn:
    """A column by its name."""
    column = session.get(GivenColumn, (collection_id, name))
    if column is None:
        raise NotFound("There is no such column. Somebody may have taken it away.")
    return column


def list_newest(session: Session, table: GivenTable, column: str) -> list[int]:
    """The images of which no later table says anything in a column."""
    newest = (
        select(GivenRow.image_id, GivenRow.table_id)
        .join(GivenTable, GivenTable.id == GivenRow.table_id)
        .where(GivenTable.collection_id == table.collection_id, GivenRow.said.has_key(column))
        .order_by(GivenRow.image_id, GivenRow.id.desc())
        .ext(distinct_on(GivenRow.image_id))
        .subquery()
    )
    return list(session.scalars(select(newest.c.image_id).where(newest.c.table_id == table.id)))


def read_anew(session: Session, collection_id: int, names: list[str]) -> None:
    """Have images say in columns what the tables that there are say; a column without any goes."""
    asked = sql_cast(names, ARRAY(String))
    having = select(Image.id).where(
        Image.collection_id == collection_id, Image.given.has_any(asked)
    )
    cells: dict[int, dict[str, str]] = {image_id: {} for image_id in session.scalars(having)}
    said_in_turn = session.execute(
        select(GivenRow.image_id, GivenRow.said)
        .join(GivenTable, GivenTable.id == GivenRow.table_id)
        .where(GivenTable.collection_id == collection_id, GivenRow.said.has_any(asked))
        .order_by(GivenRow.id)
    )
    for image_id, said in said_in_turn:
        of_image = cells.setdefault(image_id, {})
        for name in names:
            if said.get(name) is not None:
                of_image[name] = said[name]
            elif name in said:  # an empty cell takes away what was there
                of_image.pop(name, None)
    kinds: dict[str, str] = {}
    orders: dict[str, str | None] = {}
    for column in list_columns(session, collection_id):
        if column.name in names:
            here = [one[column.name] for one in cells.values() if column.name in one]
            orders[column.name] = tell_order(here)
            kind = _tell_kind(here, orders[column.name])
            if kind is None:
                session.delete(column)
            else:
                kinds[column.name] = column.kind = kind
                column.choices, column.least, column.most = [], None, None
    session.flush()
    values = {
        image_id: {
            name: _to_cell(cell, kinds[name], orders[name]) for name, cell in of_image.items()
        }
        for image_id, of_image in cells.items()
    }
    _keep_values(session, names, values)
    _describe_columns(session, collection_id, kinds, values)


def mark_column(
    session: Session, collection_id: int, name: str, *, holds_place: bool, person: Person
) -> None:
    """Say whether a column holds places, which are not shown to everyone."""
    collection = session.get_one(Collection, collection_id, with_for_update=True)
    column = get_column(session, collection_id, name)
    if column.holds_place != holds_place:
        column.holds_place = holds_place
        note_guarded(session, collection_id)
        is_what = "holds places" if holds_place else "holds no places"
        what = f"Said that the column {name} of “{collection.name}” {is_what}"
        note(session, person, "share", what, collection=collection)


def choose_columns(
    session: Session,
    collection_id: int,
    *,
    chosen: Mapping[str, str | None],
    order: str | None,
    person: Person,
) -> Taken:
    """Say which column is taken for what, or None for none; what is not named is found by itself.

    `order` says whether the day or the month comes first, where days can be read in two ways.
    """
    collection = session.get_one(Collection, collection_id, with_for_update=True)
    columns = {column.name: column for column in list_columns(session, collection_id)}
    check_choice(chosen, order, list(columns))
    taken = take_anew(session, collection, chosen=chosen, order=order)
    check_taken(chosen, taken)
    words = ", ".join(taken.list_words()) or "nothing"
    what = f"Chose what images of “{collection.name}” have from tables: {words}"
    note(session, person, "import", what, collection=collection)
    return taken


def _check_header(header: list[str], name: str) -> None:
    if len(header) > MOST_COLUMNS:
        raise LabelsNotUsable(
            f"{name} has {len(header)} columns; at most {MOST_COLUMNS} are kept. Leave some out."
        )
    doubled = next((column for column in header if column and header.count(column) > 1), None)
    if doubled is not None:
        raise LabelsNotUsable(f"{name} has two columns {doubled}. Name one of them otherwise.")
    longest = max(header, key=len)
    if len(longest) > LONGEST_COLUMN:
        raise LabelsNotUsable(
            f"{name} has a column whose name has {len(longest):,} letters: {longest[:40]}… "
            f"Shorten it to {LONGEST_COLUMN} at most."
        )
    if not all(header):
        place = header.index("") + 1
        raise LabelsNotUsable(f"Column {place} of {name} has no name. Give it one in line 1.")


def _read_commas(header: list[str], rows: Rows) -> None:
    """Write numbers with decimal commas with points."""
    for at, column in enumerate(header):
        written = [row[at].strip() for _, row in rows if row[at].strip()]
        with_comma = [cell for cell in written if "," in cell]
        if (
            all(COMMA_NUMBER.fullmatch(cell) for cell in with_comma)
            and (is_in_degrees(column) or not all(map(THOUSANDS.fullmatch, with_comma)))
            and all(_is_number(cell) and "." not in cell for cell in written if "," not in cell)
        ):
            for _, row in rows:
                row[at] = row[at].replace(",", ".")


def _match(
    session: Session,
    collection_id: int,
    header: list[str],
    rows: Rows,
    name: str,
) -> tuple[dict[int, tuple[int, list[str]]], list[tuple[int, str, str]]]:
    """The row of each image, and of each row about none its line, what it names, and why."""
    by_hash = find_column(header, HASH_COLUMNS)
    by_name = find_column(header, NAME_COLUMNS)
    if by_hash is None and by_name is None:
        raise LabelsNotUsable(
            f"{name} has no column that tells the image: file, path, filename or sha256. "
            f"Its columns are: {name_columns(header)}."
        )
    folder = find_column(header, FOLDER_COLUMNS)

    def cell(row: list[str], at: int | None) -> str:
        return row[at].strip() if at is not None and at < len(row) else ""

    def name_of(row: list[str]) -> str:
        own = cell(row, by_name)
        before = cell(row, folder).replace("\\", "/").strip("/") if folder != by_name else ""
        if not before or not own:
            return own
        spelled = own.replace("\\", "/").strip("/").lower()
        if f"/{before}".lower().endswith(f"/{spelled}"):
            return before  # a path with the name in it
        return own if spelled.startswith(f"{before}/".lower()) else f"{before}/{own}"

    named = {line: name_of(row) for line, row in rows}
    paths = dict(
        session.execute(
            select(ImagePath.path, ImagePath.image_id).filter_by(collection_id=collection_id)
        ).all()
    )
    hashes: dict[str, int] = {}
    if by_hash is not None:
        query = select(Image.sha256, Image.id).filter_by(collection_id=collection_id)
        hashes = dict(session.execute(query).all())
    found = match_files(set(named.values()), paths)
    rows_of: dict[int, tuple[int, list[str]]] = {}
    unmatched: list[tuple[int, str, str]] = []
    for line, row in rows:
        checksum = cell(row, by_hash).lower()
        ids = {paths[path] for path in found[named[line]]} if named[line] else set()
        if SHA256.fullmatch(checksum):
            ids = {hashes[checksum]} if checksum in hashes else set()
        about = (named[line] or checksum or "(nothing)").replace("\0", "")[:MOST_LETTERS]
        if len(ids) > 1:
            why = f"{len(ids)} images have this name: write their path"
            unmatched.append((line, about, why))
        elif not ids:
            unmatched.append((line, about, say_unknown(named[line])))
        elif (image_id := ids.pop()) in rows_of:
            first = rows_of[image_id][0]
            unmatched.append((line, about, f"line {first} is about the same image and was kept"))
        else:
            rows_of[image_id] = (line, row)
    return rows_of, unmatched


def _tell_orders(
    session: Session, collection_id: int, written: Mapping[str, list[str]]
) -> dict[str, str | None]:
    """Whether day or month comes first in each column, by its new cells and those of before.

    A table of a few days alone may leave it open, where the ones before it did not.
    """
    dates = {one.name for one in list_columns(session, collection_id) if one.kind == "date"}
    orders = {}
    for column, cells in written.items():
        orders[column] = tell_order(cells)
        if orders[column] is not None and column in dates:
            before = session.scalars(
                select(GivenRow.said.op("->>")(column))
                .join(GivenTable, GivenTable.id == GivenRow.table_id)
                .where(GivenTable.collection_id == collection_id, GivenRow.said.has_key(column))
                .distinct()
            )
            orders[column] = tell_order([*cells, *(cell for cell in before if cell)])
    return orders


def _tell_kind(cells: Sequence[str], order: str | None) -> str | None:
    """number, date or text by what stands in a column; None where nothing does.

    Days as 28.03.2025 are dates where it is certain (`order`) which of day and month comes first.
    """
    written = [cell.strip() for cell in cells if cell.strip()]
    if not written:
        return None
    if all(_is_number(cell) for cell in written):
        return "number"
    are_dates = all(_is_date(cell) or _read_day(cell, order) is not None for cell in written)
    return "date" if are_dates else "text"


def _is_number(cell: str) -> bool:
    # One of hundreds of digits is too large for any: it stays text.
    return (
        any(c.isdigit() for c in cell)
        and NUMBER.fullmatch(cell) is not None
        and isfinite(float(cell))
    )


def _is_date(cell: str) -> bool:
    if not DATE.fullmatch(cell):
        return False
    try:
        datetime.fromisoformat(cell)
    except ValueError:
        return False
    return True


def _read_day(cell: str, order: str | None) -> date | None:
    """The day that a cell says, where it says no time of day with it."""
    found = read_day(cell, order or None)
    return found[0] if found is not None and not found[1] else None


def _clean(cell: str) -> str:
    return cell.strip().replace("\0", "")[:MOST_LETTERS]


def _to_cell(cell: str, kind: str, order: str | None) -> Cell:
    cell = _clean(cell)
    if kind == "date" and (day := _read_day(cell, order)) is not None:
        return day.isoformat()
    if kind == "number":
        value = float(cell)
        return int(value) if value.is_integer() and abs(value) < 1e15 else value
    return cell.replace(" ", "T", 1) if kind == "date" else cell


def _keep_columns(session: Session, collection_id: int, kinds: dict[str, str]) -> dict[str, str]:
    """Add what is new; a column that was of another kind becomes text. Their kinds now."""
    known = {column.name: column for column in list_columns(session, collection_id)}
    settled = {}
    for name, kind in kinds.items():
        column = known.get(name)
        if column is None:
            column = GivenColumn(
                collection_id=collection_id,
                name=name,
                kind=kind,
                position=len(known),
                choices=[],
                holds_place=may_hold_places(name),
            )
            known[name] = column
            session.add(column)
        elif column.kind not in (kind, "text"):
            path = sql_cast([name], ARRAY(GivenColumn.name.type))
            session.execute(
                update(Image)
                .where(Image.collection_id == collection_id, Image.given.has_key(name))
                .values(
                    given=func.jsonb_set(
                        Image.given, path, func.to_jsonb(Image.given.op("->>")(name))
                    )
                )
            )
            column.kind, column.choices, column.least, column.most = "text", None, None, None
        settled[name] = column.kind
    session.flush()
    return settled


def _keep_values(session: Session, columns: list[str], values: dict[int, dict[str, Cell]]) -> None:
    """Put the rows beside their images, in place of what stood there in these columns."""
    image_ids = list(values)
    for start in range(0, len(image_ids), CHUNK_IMAGES):
        some = image_ids[start : start + CHUNK_IMAGES]
        given = (
            func.unnest(
                bindparam("ids", some, ARRAY(Image.id.type)),
                bindparam("said", [values[image_id] for image_id in some], ARRAY(JSONB)),
            )
            .table_valued("id", "said")
            .render_derived()
        )
        empty = sql_cast({}, JSONB)
        before = func.coalesce(Image.given, empty).op("-")(
            sql_cast(columns, ARRAY(GivenColumn.name.type))
        )
        session.execute(
            update(Image)
            .where(Image.id == given.c.id)
            .values(given=func.nullif(before.op("||")(sql_cast(given.c.said, JSONB)), empty))
            .execution_options(synchronize_session=False)
        )
    session.expire_all()


def _keep_table(session: Session, collection_id: int, name: str, columns: list[str]) -> GivenTable:
    """The table of that name, without the rows of before that are about no image."""
    table = session.scalar(select(GivenTable).filter_by(collection_id=collection_id, name=name))
    if table is None:
        table = GivenTable(
            collection_id=collection_id, name=name, row_count=0, image_count=0, columns=[]
        )
        session.add(table)
    table.columns = list(dict.fromkeys((*table.columns, *columns)))
    table.added_at = func.clock_timestamp()  # of two in one transaction the later one is later
    session.flush()
    session.execute(delete(UnmatchedRow).filter_by(table_id=table.id))
    return table


def _keep_rows(
    session: Session, table: GivenTable, said_of: dict[int, dict[str, str | None]]
) -> None:
    """Keep what a table says of each image, in place of what it said there in these columns."""
    image_ids = list(said_of)
    for start in range(0, len(image_ids), CHUNK_IMAGES):
        some = image_ids[start : start + CHUNK_IMAGES]
        session.execute(
            delete(GivenRow)
            .where(
                GivenRow.table_id == table.id,
                is_among(GivenRow.image_id, some),
                GivenRow.said.op("-")(sql_cast(list(said_of[some[0]]), ARRAY(String)))
                == sql_cast({}, JSONB),
            )
            .execution_options(synchronize_session=False)
        )
        session.execute(
            insert(GivenRow),
            [{"table_id": table.id, "image_id": i, "said": said_of[i]} for i in some],
        )


def _describe_columns(
    session: Session,
    collection_id: int,
    kinds: dict[str, str],
    values: dict[int, dict[str, Cell]],
) -> None:
    """Remember what a filter may offer: the texts of a column, or its least and its most."""
    for column in list_columns(session, collection_id):
        if column.name not in kinds:
            continue
        here: set[Any] = {said[column.name] for said in values.values() if column.name in said}
        if not here:
            continue
        if column.kind == "text":
            if column.choices is not None:
                together = sorted({*column.choices, *map(str, here)})
                column.choices = together if len(together) <= MOST_CHOICES else None
            continue
        order = float if column.kind == "number" else str
        ends = [end for end in (column.least, column.most) if end is not None]
        column.least = str(min([*here, *ends], key=order))
        column.most = str(max([*here, *ends], key=order))
        column.choices = None
    session.flush()


def _count_without(session: Session, collection_id: int) -> int:
    query = select(func.count()).where(
        Image.collection_id == collection_id, Image.removed_at.is_(None), Image.given.is_(None)
    )
    return session.scalar(query) or 0
