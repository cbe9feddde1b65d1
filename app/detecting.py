"""Boxes that MegaDetector drew: kept beside the images, shown on them, embedded in their place.

What its JSON says of an image becomes columns of a table, too: what was seen with most certainty,
and how certainly each kind was. Detections below a threshold count as none. An image on which it
sees a person is hidden (`app/sensitive.py`).

Source: the format of MegaDetector's batch output, version 1 (agentmorris/MegaDetector): boxes are
left, top, width and height as shares of the upright image.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    any_,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from app.database import is_among
from app.engine.numerals import plural, spaced
from app.errors import LabelsNotUsable
from app.metadata import TableSummary, add_rows
from app.sensitive import hide_people
from app.sources import clean_label, clean_text
from app.tables import Box, Image, Person

COLUMN = "MegaDetector"  # the column of what was seen; others begin with it
PERSON, ANIMAL = "person", "animal"
NOTHING, FAILED = "nothing", "failed"
MOST_CATEGORIES = 100  # of what it tells apart: each is a column
USUAL_THRESHOLD = 0.2  # what its makers advise to begin with
MARGIN = 0.1  # of a box's longer side, left around it where it is embedded
CHUNK_IMAGES = 1_000

Area = tuple[float, float, float, float]  # left, top, right, bottom; shares of the upright image


@dataclass(frozen=True)
class Detection:
    """One box that is certain enough."""

    category: str
    confidence: float  # 0..1
    x: float  # shares of the upright image
    y: float
    width: float
    height: float


def is_detections(name: str, data: bytes) -> bool:
    """Whether a file is one of a detector, by its ending and how it begins."""
    return name.lower().endswith(".json") or data.lstrip()[:1] == b"{"


def add_detections(
    session: Session,
    collection_id: int,
    *,
    name: str,
    data: bytes,
    threshold: float,
    person: Person,
) -> TableSummary:
    """Keep what a detector's JSON says of the collection's images; LabelsNotUsable in a sentence.

    Boxes of an image that it speaks of take the place of earlier ones.
    """
    if not 0 <= threshold <= 1:
        raise LabelsNotUsable("The threshold is a number from 0 to 1, such as 0.2.")
    categories, found = _read(data, name, threshold)
    header = ["file", COLUMN, *(f"{COLUMN} {category}" for category in categories)]
    rows = [
        (number, [file, *_to_cells(found[file], categories)])
        for number, file in enumerate(found, 1)
    ]
    summary, rows_of = add_rows(
        session,
        collection_id,
        name=name,
        header=header,
        rows=rows,
        person=person,
    )
    files = list(found)
    own = {image_id: found[files[number - 1]] or [] for image_id, number in rows_of.items()}
    _keep_boxes(session, own)
    with_people = [i for i, boxes in own.items() if any(b.category == PERSON for b in boxes)]
    hidden = hide_people(session, collection_id, with_people)
    boxed = sum(bool(boxes) for boxes in own.values())
    have = "has" if boxed == 1 else "have"
    notes = [f"{plural(boxed, 'image')} {have} a box of at least {threshold:g} certainty."]
    if hidden:
        notes.append(
            f"{spaced(hidden)} on which it sees a person are hidden: only people who are trusted "
            "with such images see them."
        )
    return replace(summary, notes=[*summary.notes, *notes])


def has_boxes(session: Session, collection_id: int) -> bool:
    """Whether a detector drew boxes on images of a collection."""
    own = select(Image.id).where(Image.collection_id == collection_id, Image.boxed_at.is_not(None))
    return session.scalar(own.limit(1)) is not None


# Asked at each round, so written once: to write it anew takes longer than to ask.
ASK_BOXES = (
    select(Box)
    .where(Box.image_id == any_(bindparam("image_ids", type_=ARRAY(BigInteger))))
    .order_by(Box.image_id, Box.position)
)


def list_boxes(session: Session, image_ids: Sequence[int]) -> dict[int, list[Box]]:
    """The boxes of images, the most certain first; images without one are left out."""
    found: dict[int, list[Box]] = defaultdict(list)
    if image_ids:
        for box in session.scalars(ASK_BOXES, {"image_ids": list(image_ids)}):
            found[box.image_id].append(box)
    return dict(found)


def find_areas(session: Session, image_ids: Sequence[int]) -> dict[int, Area]:
    """What to embed of images in place of the whole: the most certain animal, else other thing.

    A square with a margin, as far as the image allows. People are never what is looked for.
    """
    newest = (
        select(Box, Image.width, Image.height)
        .join(Image, Image.id == Box.image_id)
        .where(is_among(Box.image_id, list(image_ids)), Box.category != PERSON)
        .order_by(
            Box.image_id,
            case((Box.category == ANIMAL, 0), else_=1),
            Box.confidence.desc(),
            Box.position,
        )
        .ext(distinct_on(Box.image_id))
    )
    return {
        box.image_id: widen(box, width, height) for box, width, height in session.execute(newest)
    }


def widen(box: Box | Detection, width: int, height: int) -> Area:
    """The square around a box, in shares of an image of `width` x `height` pixels."""
    side = max(box.width * width, box.height * height) * (1 + 2 * MARGIN)

    def spread(start: float, size: float, length: int) -> tuple[float, float]:
        share = min(1.0, side / length)
        first = min(max(0.0, start + size / 2 - share / 2), 1.0 - share)
        return first, first + share

    left, right = spread(box.x, box.width, width)
    top, bottom = spread(box.y, box.height, height)
    return left, top, right, bottom


def forget_boxes(session: Session, image_ids: Sequence[int]) -> None:
    """Take the boxes of images away; what looks at boxes is to be made anew."""
    for start in range(0, len(image_ids), CHUNK_IMAGES):
        some = image_ids[start : start + CHUNK_IMAGES]
        session.execute(
            delete(Box)
            .where(is_among(Box.image_id, list(some)))
            .execution_options(synchronize_session=False)
        )
        # They differ from what an index looked at, as those that came do.
        _stamp(session, some)


def _read(
    data: bytes, name: str, threshold: float
) -> tuple[list[str], dict[str, list[Detection] | None]]:
    """The kinds told apart, and of each file its boxes; None where it could not be read."""
    try:
        told = json.loads(data)
        kinds = told["detection_categories"].items()
        categories = {str(key): clean_label(str(kind)) for key, kind in kinds}
        images = told["images"]
        found = {
            clean_text(str(one["file"])): None
            if one.get("detections") is None
            else _read_boxes(one["detections"], categories, threshold)
            for one in images
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LabelsNotUsable(
            f"{name} is no result of MegaDetector: it needs “images”, each with “file” and "
            "“detections”, and “detection_categories”. Known labels in COCO's format are given "
            "when images are added."
        ) from error
    if not found:
        raise LabelsNotUsable(f"{name} names no image.")
    if len(categories) > MOST_CATEGORIES:
        raise LabelsNotUsable(
            f"{name} has {len(categories):,} categories; at most {MOST_CATEGORIES} are kept."
        )
    return list(dict.fromkeys(categories.values())), found


def _read_boxes(
    detections: Iterable[dict[str, Any]], categories: dict[str, str], threshold: float
) -> list[Detection]:
    boxes = []
    for one in detections:
        confidence = float(one["conf"])
        x, y, width, height = (float(side) for side in one["bbox"])
        if not all(map(isfinite, (confidence, x, y, width, height))):
            raise ValueError
        right, bottom = min(1.0, x + width), min(1.0, y + height)
        x, y = max(0.0, x), max(0.0, y)
        if confidence >= threshold and right > x and bottom > y:
            kind = categories[str(one["category"])]
            boxes.append(Detection(kind, confidence, x, y, right - x, bottom - y))
    return sorted(boxes, key=lambda box: -box.confidence)


def _to_cells(boxes: list[Detection] | None, categories: list[str]) -> list[str]:
    """What is seen most certainly, and how certainly each kind is."""
    if boxes is None:
        return [FAILED, *("" for _ in categories)]
    most: dict[str, float] = {}
    for box in boxes:
        most.setdefault(box.category, box.confidence)
    seen = boxes[0].category if boxes else NOTHING
    return [seen, *(f"{most[kind]:.3f}" if kind in most else "" for kind in categories)]


def _keep_boxes(session: Session, boxes_of: dict[int, list[Detection]]) -> None:
    """Put these boxes in place of what the images had, where they differ."""
    image_ids = list(boxes_of)
    for start in range(0, len(image_ids), CHUNK_IMAGES):
        some = image_ids[start : start + CHUNK_IMAGES]
        before = {
            image_id: [_to_detection(box) for box in boxes]
            for image_id, boxes in list_boxes(session, some).items()
        }
        changed = [i for i in some if before.get(i, []) != boxes_of[i]]
        session.execute(
            delete(Box)
            .where(is_among(Box.image_id, changed))
            .execution_options(synchronize_session=False)
        )
        rows = [
            {"image_id": image_id, "position": position} | vars(box)
            for image_id in changed
            for position, box in enumerate(boxes_of[image_id])
        ]
        if rows:
            session.execute(insert(Box), rows)
        _stamp(session, changed)
    session.expire_all()


def _stamp(session: Session, image_ids: Sequence[int]) -> None:
    session.execute(
        update(Image)
        .where(is_among(Image.id, list(image_ids)))
        .values(boxed_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )


def _to_detection(box: Box) -> Detection:
    return Detection(box.category, box.confidence, box.x, box.y, box.width, box.height)
