"""The answers of a search, or the state of every image of its collection: CSV and JSON Lines."""

import csv
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

from sqlalchemy import ColumnElement, String, func, literal_column, select
from sqlalchemy.orm import Session

from app.answers import read_current_answers
from app.database import is_among
from app.deploying import may_folders_be_labels
from app.events import read_events
from app.indexing import OpenIndexes
from app.metadata import list_columns
from app.remarks import Remarks
from app.results import describe_images
from app.seats import list_standing
from app.sensitive import Sight
from app.tables import FILE_NAME, Image, ImageIndex, Round, RoundImage, Search
from app.tables import Deployment as DeploymentRecord

Format = Literal["csv", "jsonl"]
State = Literal["yes", "no", "unsure", "left open", "unseen"]
ROWS_AT_A_TIME = 1_000
OF_EVENTS = ("event_id", "answered_with")
# The wide ones count as well where Chinese or Japanese is written.
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


@dataclass(frozen=True)
class ExportRow:
    """One answered image. Score and probability are the current head's, null without a head."""

    target: str
    collection: str
    path: str
    sha256: str
    captured_at: str | None  # ISO 8601, camera-local: no offset is known
    event_id: int | None  # of a collection with events; images of one event have the same
    latitude: float | None
    longitude: float | None
    coordinate_precision: float | None  # degrees that places are rounded to; null for exact ones
    camera: str | None
    answer: str | None  # null without one
    no_because: str | None
    answered_with: str | None  # the path of the image of its event that was looked at instead
    answered_by: str | None
    answered_at: str | None  # ISO 8601 with offset
    round: int | None
    score: float | None
    probability: float | None
    shown_because: str | None
    score_when_shown: float | None
    probability_when_shown: float | None
    tags: list[str]
    notes: list[dict[str, str]]  # text, by, at
    given: dict[str, Any]  # what brought tables say of it


@dataclass(frozen=True)
class StateRow(ExportRow):
    """One image of the collection, answered or not."""

    state: State
    folder: str  # the first level of its path: most often the camera's place
    width: int  # pixels, upright
    height: int
    file_format: str
    size_bytes: int


def write_export(
    session: Session,
    search: Search,
    indexes: OpenIndexes,
    *,
    file_format: Format,
    sight: Sight,
) -> Iterator[str]:
    """The lines of an export: one for every image that has an answer, in order of path."""
    rows = export_rows(session, search, indexes, sight=sight)
    return write_rows(rows, _name_columns(session, search, ExportRow), file_format)


def write_states(
    session: Session,
    search: Search,
    indexes: OpenIndexes,
    *,
    file_format: Format,
    sight: Sight,
) -> Iterator[str]:
    """The lines of an export: one for every image of the collection, in order of path."""
    rows = state_rows(session, search, indexes, sight=sight)
    return write_rows(rows, _name_columns(session, search, StateRow), file_format)


def write_rows(rows: Iterator[ExportRow], columns: "Columns", file_format: Format) -> Iterator[str]:
    """Rows of one kind as lines.

    Columns of brought tables come last in CSV, as given.NAME, and as one object in JSON Lines.
    """
    if file_format == "jsonl":
        for row in rows:
            said = {name: getattr(row, name) for name in (*columns.own, "given")}
            yield json.dumps(said, ensure_ascii=False) + "\n"
        return

    def cells() -> Iterator[dict[str, object]]:
        for row in rows:
            said = {f"given.{name}": row.given.get(name) for name in columns.given}
            remarks = {"tags": join_tags(row.tags), "notes": join_notes(row.notes)}
            yield {name: getattr(row, name) for name in columns.own} | remarks | said

    yield from write_csv([*columns.own, *(f"given.{name}" for name in columns.given)], cells())


@dataclass(frozen=True)
class Columns:
    """What is written of each row: its own fields, and columns of brought tables."""

    own: list[str]
    given: list[str]


def _name_columns(session: Session, search: Search, kind: type[ExportRow]) -> Columns:
    """The columns of a search; what is about events only where there are any."""
    own = [field.name for field in fields(kind) if field.name != "given"]
    tip = session.get(Round, search.current_round_id)
    if tip is None or tip.grouping_id is None:
        own = [name for name in own if name not in OF_EVENTS]
    return Columns(own, [column.name for column in list_columns(session, search.collection_id)])


def write_csv(header: list[str], rows: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """A header and rows as CSV, safe to open in a spreadsheet."""
    line = io.StringIO()
    writer = csv.DictWriter(line, header)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: defuse(value) for name, value in row.items()})
        yield take(line)
    yield take(line)  # the header of an export without rows


def export_rows(
    session: Session, search: Search, indexes: OpenIndexes, *, sight: Sight
) -> Iterator[ExportRow]:
    """Every image with an answer (yes, no or unsure), in order of path."""
    answers = read_current_answers(session, search)
    for row in state_rows(session, search, indexes, sight=sight, among=answers):
        yield ExportRow(**{field.name: getattr(row, field.name) for field in fields(ExportRow)})


def state_rows(
    session: Session,
    search: Search,
    indexes: OpenIndexes,
    *,
    sight: Sight,
    among: Collection[int] | None = None,
) -> Iterator[StateRow]:
    """Every image of the collection, or those of `among`, in order of path."""
    tip = session.get(Round, search.current_round_id)
    if tip is None:
        return
    answers = read_current_answers(session, search)
    index = indexes.get(session.get_one(ImageIndex, tip.index_id))
    events = read_events(session, tip.grouping_id)
    chain = select(list_standing(search.id).c.id)
    naming = read_naming(session, search.collection_id)
    for images in read_images(session, search.collection_id, among=among):
        image_ids = [image.id for image in images]
        shown = {
            place.image_id: place
            for place in session.scalars(
                select(RoundImage)
                .where(RoundImage.round_id.in_(chain), is_among(RoundImage.image_id, image_ids))
                .order_by(RoundImage.round_id)
            )
        }
        cards = describe_images(session, search, image_ids, index)
        numbers = image_ids if events is None else events.numbers_of(image_ids).tolist()
        event_of = dict(zip(image_ids, numbers, strict=True))
        for image, card in zip(images, cards, strict=True):
            place = shown.get(image.id)
            latitude, longitude = sight.degrees_of(image)
            answer = answers.get(image.id)
            yield StateRow(
                target=search.target_name,
                collection=search.collection.name,
                path=naming.path(image.path),
                sha256=image.sha256,
                captured_at=image.captured_at.isoformat() if image.captured_at else None,
                event_id=None if events is None else event_of[image.id],
                latitude=latitude,
                longitude=longitude,
                coordinate_precision=None if latitude is None else sight.grid,
                camera=image.camera,
                answer=answer,
                no_because=card.no_reason,
                answered_with=card.answered_with and naming.path(card.answered_with),
                answered_by=card.who,
                answered_at=card.at.isoformat() if card.at else None,
                round=card.round_number,
                score=card.score,
                probability=card.probability,
                shown_because=place.reason if place else None,
                score_when_shown=place.score if place else None,
                probability_when_shown=place.probability if place else None,
                tags=card.remarks.tags,
                notes=list_notes(card.remarks),
                given=sight.given(image.given),
                state=cast(State, answer) if answer else "left open" if place else "unseen",
                folder=naming.folder(image.path),
                width=image.width,
                height=image.height,
                file_format=image.format,
                size_bytes=image.size_bytes,
            )


def read_images(
    session: Session, collection_id: int, *, among: Collection[int] | None = None
) -> Iterator[list[Image]]:
    """The images of a collection that are not removed, or those of `among`, some at a time.

    In order of path. Every export takes its images from here.
    """
    query = select(Image.id).filter_by(collection_id=collection_id, removed_at=None)
    if among is not None:
        query = query.where(is_among(Image.id, list(among)))
    image_ids = session.scalars(query.order_by(Image.path, Image.id)).all()
    for start in range(0, len(image_ids), ROWS_AT_A_TIME):
        some = list(image_ids[start : start + ROWS_AT_A_TIME])
        known = {
            image.id: image
            for image in session.scalars(select(Image).where(is_among(Image.id, some)))
        }
        yield [known[image_id] for image_id in some]


@dataclass(frozen=True)
class Naming:
    """How exports of a collection name its files: they must tell them apart, and no more.

    Where folders may be labels, a file is called by its own name, and by its whole path only where
    another file of the collection has the same name.
    """

    hides_folders: bool
    shared: frozenset[str]  # own names that several files have, in small letters

    def path(self, path: str) -> str:
        """What tells the file of a path from the collection's others."""
        name = path.rsplit("/", 1)[-1]
        return path if not self.hides_folders or name.lower() in self.shared else name

    def folder(self, path: str) -> str:
        """The first level of a path; empty for a file in no folder, or one not to be told."""
        return "" if self.hides_folders or "/" not in path else path.split("/", 1)[0]

    def deployment(self, image: Image) -> DeploymentRecord | None:
        """The recorded deployment of an image; none if its name is that of a folder not to tell."""
        own = image.deployment
        is_told = not self.hides_folders or own is None or own.name != image.path.split("/", 1)[0]
        return own if is_told else None


def read_naming(session: Session, collection_id: int) -> Naming:
    """How exports name the files of a collection."""
    if not may_folders_be_labels(session, collection_id):
        return Naming(hides_folders=False, shared=frozenset())
    own_name: ColumnElement[str] = literal_column(FILE_NAME, String)
    query = select(own_name).select_from(Image).filter_by(collection_id=collection_id)
    several = session.scalars(query.group_by(own_name).having(func.count() > 1))
    return Naming(hides_folders=True, shared=frozenset(several))


def list_notes(remarks: Remarks) -> list[dict[str, str]]:
    """Notes as JSON has them."""
    return [
        {"text": note.text, "by": note.who, "at": note.at.isoformat()} for note in remarks.notes
    ]


def join_tags(tags: list[str]) -> str:
    """Tags in one cell."""
    return "; ".join(tags)


def join_notes(notes: list[dict[str, str]]) -> str:
    """Notes in one cell, each on one line with who wrote it on which day."""
    return " | ".join(
        f"{' '.join(note['text'].split())} ({note['by']}, {note['at'][:10]})" for note in notes
    )


def defuse(value: object) -> object:
    """Text that a spreadsheet would run as a formula gets an apostrophe before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_SIGNS) else value


def take(line: io.StringIO) -> str:
    """What was written since the last call."""
    text = line.getvalue()
    line.seek(0)
    line.truncate()
    return text
