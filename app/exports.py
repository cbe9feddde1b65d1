"""The answers of a search as files that other programs read: CSV and JSON Lines."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.indexing import OpenIndexes
from app.metadata import list_columns
from app.reporting import describe_images
from app.searching import list_chain, read_current_answers
from app.tables import Image, ImageIndex, Round, RoundImage, Search

Format = Literal["csv", "jsonl"]
ROWS_AT_A_TIME = 1_000
FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class ExportRow:
    """One answered image. Score and probability are the current head's, null without a head."""

    target: str
    collection: str
    path: str
    sha256: str
    captured_at: str | None  # ISO 8601, camera-local: no offset is known
    latitude: float | None
    longitude: float | None
    camera: str | None
    answer: str
    answered_by: str | None
    answered_at: str | None  # ISO 8601 with offset
    round: int | None
    score: float | None
    probability: float | None
    shown_because: str | None
    score_when_shown: float | None
    probability_when_shown: float | None
    given: dict[str, Any]  # what brought tables say of it


def write_export(
    session: Session, search: Search, indexes: OpenIndexes, *, file_format: Format
) -> Iterator[str]:
    """The lines of an export: one for every image that has an answer, in order of path.

    Columns of brought tables come last in CSV, as given.NAME, and as one object in JSON Lines.
    """
    rows = export_rows(session, search, indexes)
    if file_format == "jsonl":
        for row in rows:
            yield json.dumps(asdict(row), ensure_ascii=False) + "\n"
        return
    own = [field.name for field in fields(ExportRow) if field.name != "given"]
    given = [column.name for column in list_columns(session, search.collection_id)]
    line = io.StringIO()
    writer = csv.writer(line)
    writer.writerow([*own, *(f"given.{name}" for name in given)])
    for row in rows:
        values = [getattr(row, name) for name in own] + [row.given.get(name) for name in given]
        writer.writerow([defuse(value) for value in values])
        yield take(line)
    yield take(line)  # the header of an export without answers


def export_rows(session: Session, search: Search, indexes: OpenIndexes) -> Iterator[ExportRow]:
    """Every image with an answer (yes, no or unsure), in order of path."""
    answers = read_current_answers(session, search)
    if not answers or search.current_round_id is None:
        return
    tip = session.get_one(Round, search.current_round_id)
    index = indexes.get(session.get_one(ImageIndex, tip.index_id))
    chain = list_chain(tip.id)
    images = session.scalars(
        select(Image).where(Image.id.in_(answers)).order_by(Image.path, Image.id)
    ).all()
    shown = {
        place.image_id: place
        for place in session.scalars(
            select(RoundImage)
            .where(RoundImage.round_id.in_(select(chain.c.id)))
            .order_by(RoundImage.round_id)
        )
    }
    for start in range(0, len(images), ROWS_AT_A_TIME):
        some = images[start : start + ROWS_AT_A_TIME]
        cards = describe_images(session, search, [image.id for image in some], index)
        for image, card in zip(some, cards, strict=True):
            place = shown.get(image.id)
            yield ExportRow(
                target=search.target_name,
                collection=search.collection.name,
                path=image.path,
                sha256=image.sha256,
                captured_at=image.captured_at.isoformat() if image.captured_at else None,
                latitude=image.latitude,
                longitude=image.longitude,
                camera=image.camera,
                answer=answers[image.id],
                answered_by=card.who,
                answered_at=card.at.isoformat() if card.at else None,
                round=card.round_number,
                score=card.score,
                probability=card.probability,
                shown_because=place.reason if place else None,
                score_when_shown=place.score if place else None,
                probability_when_shown=place.probability if place else None,
                given=image.given or {},
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
